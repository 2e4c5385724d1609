"""An .onnx file gives the run's predictions under ONNX Runtime, wherever padding stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import experiments.export as cli
from bahdanau_jax import AttentionClassifier, BahdanauAttention, InputError
from bahdanau_jax.models.ngrams import HASHES, NO_KEY, NgramClassifier, distinct_rows
from bahdanau_jax.models.probabilities import probabilities
from bahdanau_jax.models.with_ngrams import WithNgrams

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from bahdanau_jax.interop.onnx_graph import to_onnx  # noqa: E402

WORDS = 30


def make(**fields):
    sizes = dict(embedding_features=5, hidden_features=4, attention_units=3, head_features=6)
    return AttentionClassifier(WORDS, **(sizes | fields), rngs=nnx.Rngs(0))


def with_ngrams():
    network = make(pooling=("attention", "last", "max", "mean"), num_layers=1)
    ngrams = NgramClassifier(n=3, rows=97, gaps=True, ending=True)
    return WithNgrams(network, ngrams, ngram_share=0.4)


def with_keys():
    ngrams = NgramClassifier(n=2, rows=70, ending=True, keyed=True)
    ids = np.random.default_rng(1).integers(1, WORDS, (1, 30))
    found = np.asarray(distinct_rows(ids, n=2, rows=HASHES, ending=True))
    keys = np.unique(found[found >= 0])[:60]  # ten rows are free
    ngrams.keys[...] = jnp.full(70, NO_KEY, jnp.int32).at[: len(keys)].set(keys)
    return WithNgrams(make(num_layers=1), ngrams, ngram_share=0.7)


def with_fitted_scales():
    model = WithNgrams(
        make(num_layers=1), NgramClassifier(n=2, rows=97), ngram_share=0.4, fit_blend=True
    )
    model.scales[...] = jnp.array([0.3, 1.4])
    return model


def with_a_language_model():
    return make(language_model_features=6, language_model_embedding_features=3, num_layers=2)


def without_a_mask():
    return make(num_classes=3, mask_attention=False)


def normalized():
    def attention(*sizes, rngs):
        return BahdanauAttention(*sizes, normalized=True, rngs=rngs)

    return make(attention=attention, num_layers=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "construct",
    [
        with_ngrams,
        with_keys,
        with_fitted_scales,
        with_a_language_model,
        without_a_mask,
        normalized,
    ],
)
def test_it_computes_what_the_model_does_for_any_padding(construct):
    model, rng = construct(), np.random.default_rng(0)
    # Larger than at the start of a training, when all weights are nearly even.
    nnx.update(model, jax.tree.map(lambda x: 4 * x, nnx.state(model, nnx.Param)))
    if isinstance(model, WithNgrams):
        for x in (model.ngrams.weights, model.ngrams.squared_scales, model.ngrams.bias):
            x[...] = jnp.asarray(rng.uniform(0, 1, x.shape), jnp.float32)
    model.eval()
    call = nnx.jit(lambda model, ids: model(ids))
    session = onnxruntime.InferenceSession(to_onnx(model, temperature=1.7).SerializeToString())
    for shape in ((6, 9), (1, 1), (3, 99)):
        ids = rng.integers(1, WORDS, shape) * (rng.random(shape) < 0.6)
        ids[0] = 0
        p, weights = session.run(None, {"ids": ids})
        logits, want = call(model, jnp.asarray(ids, jnp.int32))
        np.testing.assert_allclose(p, probabilities(logits / 1.7), atol=1e-6)
        np.testing.assert_allclose(weights, want, atol=1e-6)
        if construct is not without_a_mask:
            assert (weights[ids == 0] == 0).all()


class Mine(AttentionClassifier):
    pass


class MyAttention(BahdanauAttention):
    pass


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Mine(WORDS, rngs=nnx.Rngs(0)), r"config\.model\.target is .*:Mine; .* only bahd"),
        (lambda: make(attention=MyAttention), r"config\.model\.attention is .*:MyAttention; "),
        (lambda: make(dtype=jnp.bfloat16), r"config\.model\.dtype is bfloat16; .* only float32"),
    ],
)
def test_what_it_cannot_hold_is_refused(model, message):
    with pytest.raises(InputError, match=message):
        to_onnx(nnx.eval_shape(model))


@pytest.mark.slow
def test_the_command_compares_probabilities_and_weights(tiny_run, tmp_path, capsys, monkeypatch):
    asked = ["export", f"--workdir={tiny_run}", f"--output={tmp_path}/a.onnx"]
    assert cli.main(asked) == 0
    assert "largest difference over 33 texts" in capsys.readouterr().out
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert cli.main(asked) == 0
    assert "not tried, for want of onnxruntime" in capsys.readouterr().out
