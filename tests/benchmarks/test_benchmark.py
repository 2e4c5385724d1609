"""All contenders build the same network, and FLOPs and ratios are right."""

import importlib
import os

import jax
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax import AttentionClassifier
from benchmarks.data import Reviews, pad
from benchmarks.network import Sizes, forward_flops, lstm_flops, train_flops
from benchmarks.records import HUGE, PLAIN, Record, against_fastest, ratios

SIZES = Sizes(
    vocab_size=11,
    embedding_features=5,
    hidden_features=3,
    num_layers=2,
    attention_units=4,
    head_features=6,
)
ROWS = [np.array(row, np.int32) for row in ([1, 4, 9, 10, 2], [1, 5], [1, 7, 7])]
SHAPE = dict(batch_size=2, buckets=(6,))


@pytest.fixture(scope="module")
def ours():
    network = importlib.import_module("benchmarks.contenders.ours").Network(SIZES, **SHAPE)
    # Fresh biases are mostly zero, which would hide a bias in the wrong place.
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), nnx.state(network.model, nnx.Param)
    )
    nnx.update(network.model, state)
    return network.model


@pytest.fixture(scope="module")
def logits(ours) -> np.ndarray:
    model = nnx.view(ours, deterministic=True)
    return np.asarray(nnx.jit(lambda model, ids: model(ids))(model, pad(ROWS, 6))[0][:, 0])


def count(model) -> int:
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


def array(parameter) -> np.ndarray:
    return np.asarray(parameter[...])


@pytest.mark.slow
def test_nnx_has_our_network(ours, logits):
    peer = importlib.import_module("benchmarks.contenders.nnx").Network(SIZES, **SHAPE)
    assert count(peer.model) == count(ours)

    model = peer.model
    model.embedding.embedding[...] = array(ours.embedding.embedding)
    for theirs, layer in zip(model.encoder, ours.encoder, strict=True):
        for rnn, lstm in (
            (theirs.forward_rnn, layer.forward),
            (theirs.backward_rnn, layer.backward),
        ):
            rnn.cell.dense_i.kernel[...] = array(lstm.kernel)
            rnn.cell.dense_h.kernel[...] = array(lstm.recurrent_kernel)
            rnn.cell.dense_h.bias[...] = array(lstm.bias)
    model.query.kernel[...] = array(ours.attention.query_kernel)
    model.query.bias[...] = array(ours.attention.bias)
    model.key.kernel[...] = array(ours.attention.key_kernel)
    model.score.kernel[...] = array(ours.attention.score_kernel)[:, None]
    for name in ("hidden", "output"):
        getattr(model, name).kernel[...] = array(getattr(ours, name).kernel)
        getattr(model, name).bias[...] = array(getattr(ours, name).bias)
    np.testing.assert_allclose(peer.predict(ROWS), logits, rtol=1e-4, atol=1e-5)


# Keras causes it with NumPy 2.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_has_our_network(ours, logits):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    pytest.importorskip("keras", reason="keras is not installed")
    peer = importlib.import_module("benchmarks.contenders.keras").Network(SIZES, **SHAPE)
    assert peer.model.count_params() == count(ours)

    put = {
        "embedding": [ours.embedding.embedding],
        "query": [ours.attention.query_kernel, ours.attention.bias],
        "keys": [ours.attention.key_kernel],
        "attention": [ours.attention.score_kernel],
        "hidden": [ours.hidden.kernel, ours.hidden.bias],
        "output": [ours.output.kernel, ours.output.bias],
    }
    for i, layer in enumerate(ours.encoder):
        directions = (layer.forward, layer.backward)
        put[f"bilstm_{i}"] = [w for d in directions for w in (d.kernel, d.recurrent_kernel, d.bias)]
    for name, parameters in put.items():
        peer.model.get_layer(name).set_weights([array(parameter) for parameter in parameters])
    np.testing.assert_allclose(peer.predict(ROWS), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"by_length": False}, {"weights": "int8"}])
def test_onnxruntime_runs_our_network(options, monkeypatch, ours, logits):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    module = importlib.import_module("benchmarks.contenders.onnxruntime")
    monkeypatch.setattr(module, "make_model", lambda sizes: nnx.clone(ours))
    peer = module.Network(SIZES, **SHAPE, **options)
    tolerance = 0.1 if options.get("weights") else 1e-5
    np.testing.assert_allclose(peer.predict(ROWS), logits, atol=tolerance)


def load_torch(model, ours) -> None:
    torch = pytest.importorskip("torch")

    def put(parameter, values):
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.array(values)))

    put(model.embedding.weight, array(ours.embedding.embedding))
    for theirs, layer in zip(model.encoder, ours.encoder, strict=True):
        for suffix, lstm in (("", layer.forward), ("_reverse", layer.backward)):
            put(getattr(theirs, f"weight_ih_l0{suffix}"), array(lstm.kernel).T)
            put(getattr(theirs, f"weight_hh_l0{suffix}"), array(lstm.recurrent_kernel).T)
            put(getattr(theirs, f"bias_ih_l0{suffix}"), array(lstm.bias))
            put(getattr(theirs, f"bias_hh_l0{suffix}"), np.zeros_like(array(lstm.bias)))
    put(model.query.weight, array(ours.attention.query_kernel).T)
    put(model.query.bias, array(ours.attention.bias))
    put(model.key.weight, array(ours.attention.key_kernel).T)
    put(model.score.weight, array(ours.attention.score_kernel)[None])
    for name in ("hidden", "output"):
        put(getattr(model, name).weight, array(getattr(ours, name).kernel).T)
        put(getattr(model, name).bias, array(getattr(ours, name).bias))


@pytest.mark.slow
def test_torch_has_our_network_and_second_biases(ours, logits):
    pytest.importorskip("torch", reason="torch is not installed")
    module = importlib.import_module("benchmarks.contenders.torch")
    packed = module.Network(SIZES, **SHAPE, packed=True)
    second_biases = SIZES.num_layers * 2 * 4 * SIZES.hidden_features
    expected = count(ours) + second_biases
    assert sum(x.numel() for x in packed.model.parameters()) == expected
    load_torch(packed.model, ours)
    np.testing.assert_allclose(packed.predict(ROWS), logits, rtol=1e-4, atol=1e-5)

    # The padded one agrees if there is no padding.
    padded = module.Network(SIZES, batch_size=2, buckets=(len(ROWS[0]),))
    assert sum(x.numel() for x in padded.model.parameters()) == expected
    load_torch(padded.model, ours)
    np.testing.assert_allclose(padded.predict(ROWS[:1]), logits[:1], rtol=1e-4, atol=1e-5)


def test_ours_has_as_many_parameters_as_the_notebook():
    # 10,000 x 128; two layers of two directions of (128 + 64 + 1) x 256;
    # attention 2 x 128 x 64 + 64 + 64; head 129 x 20 + 21.
    expected = 1_280_000 + 4 * 193 * 256 + 16_512 + 2_601
    model = nnx.eval_shape(lambda: AttentionClassifier(Sizes().vocab_size, rngs=nnx.Rngs(0)))
    assert count(model) == expected


def test_flops_of_a_case_counted_by_hand():
    sizes = Sizes(
        embedding_features=2, hidden_features=1, num_layers=2, attention_units=3, head_features=5
    )
    assert lstm_flops(2, 1) == 16 + 8  # [2] x [2, 4] and [1] x [1, 4], 2 each
    # A token: 2 layers of 2 directions, key [2] x [2, 3], score [3] x [3], context 1 x [2].
    # A review: query [2] x [2, 3], head [2] x [2, 5] and [5] x [5, 1].
    token, review = 4 * 24 + 12 + 6 + 4, 12 + 20 + 10
    assert forward_flops(sizes, [1]) == token + review
    assert forward_flops(sizes, [3, 4]) == 7 * token + 2 * review
    assert train_flops(sizes, [3, 4]) == 3 * forward_flops(sizes, [3, 4])


def test_saved_reviews_can_be_loaded(tmp_path):
    reviews = Reviews(ROWS, np.array([0, 1, 1], np.int32))
    reviews.save(tmp_path / "reviews.npz")
    loaded = Reviews.load(tmp_path / "reviews.npz")
    assert [row.tolist() for row in loaded.ids] == [row.tolist() for row in ROWS]
    assert loaded.labels.tolist() == [0, 1, 1]


def test_ratios_pair_rounds_and_settings():
    records = [
        Record("step", "ours", PLAIN, PLAIN, [2.0, 4.0], "s"),
        Record("step", "ours", HUGE, PLAIN, [1.0, 2.0], "s"),
        Record("step", "nnx", PLAIN, PLAIN, [4.0, 8.0], "s"),
        Record("step", "torch", PLAIN, PLAIN, [6.0, 6.0], "s"),
        Record("step", "ours", HUGE, HUGE, [1.0, 3.0], "s"),
        Record("step", "torch", HUGE, HUGE, [3.0, 9.0], "s"),
        Record("step", "torch-packed", HUGE, HUGE, [20.0], "s"),
        Record("step", "ours-bfloat16", HUGE, HUGE, [1.0, 1.5], "s"),  # is no peer
    ]
    found = {
        (r.peer, r.ours_setting, r.peers_setting): list(r.rounds) for r in ratios(records, "step")
    }
    assert found == {
        ("nnx", PLAIN, PLAIN): [2.0, 2.0],
        ("torch", PLAIN, PLAIN): [3.0, 1.5],
        ("nnx", HUGE, PLAIN): [4.0, 4.0],
        ("torch", HUGE, PLAIN): [6.0, 3.0],
        ("torch", HUGE, HUGE): [3.0, 3.0],
        ("torch-packed", HUGE, HUGE): [10.0],
        ("ours-bfloat16", HUGE, HUGE): [1.0, 0.5],
    }
    best = {(r.ours_setting, r.peers_setting): r.peer for r in against_fastest(records, "step")}
    assert best == {(PLAIN, PLAIN): "nnx", (HUGE, PLAIN): "nnx", (HUGE, HUGE): "torch"}


def test_rounded_products_are_compared_with_peers_that_round():
    rows = {
        "ours": 4.0,
        "ours-int16": 2.0,
        "onnxruntime": 8.0,
        "onnxruntime-int8": 6.0,
        "torch-bfloat16": 5.0,
    }
    records = [Record("predict", name, PLAIN, PLAIN, [x], "ms") for name, x in rows.items()]
    found = {(r.ours, r.peer): r.median for r in ratios(records, "predict")}
    assert found == {
        ("ours", "onnxruntime"): 2.0,
        ("ours-int16", "onnxruntime-int8"): 3.0,
        ("ours-int16", "torch-bfloat16"): 2.5,
    }
    assert {r.ours: r.peer for r in against_fastest(records, "predict")} == {
        "ours": "onnxruntime",
        "ours-int16": "torch-bfloat16",
    }
