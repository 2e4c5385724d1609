"""Converted weights give the outputs of the other framework, on random padded input, and convert back."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import experiments.convert as cli
from bahdanau_jax import AttentionClassifier, BiLSTM, InputError
from bahdanau_jax.interop import convert, convert_check
from bahdanau_jax.interop.keras_files import read_keras, write_keras
from bahdanau_jax.interop.safetensors import load_safetensors, weights_of
from bahdanau_jax.models.probabilities import probabilities

pytestmark = [
    # Raised by Keras itself, when its variables become NumPy arrays, and about the notebook's attention.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Layer 'attention.* was passed an input with a mask"),
]

IN, HIDDEN, UNITS, HEAD, VOCABULARY = 5, 4, 3, 6, 30


def bilstms(seed=0):
    return [BiLSTM(width, HIDDEN, rngs=nnx.Rngs(seed)) for width in (IN, 2 * HIDDEN)]


@nnx.jit
def call(model, ids):
    return model(ids)


@nnx.jit
def run(layers, x, mask):
    for layer in layers:
        x, (h, c) = layer(x, mask)
    return x, h, c


@pytest.mark.slow
def test_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(IN, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
    x, lengths = np.random.default_rng(0).normal(size=(3, 7, IN)).astype(np.float32), [7, 2, 5]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), lengths, batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        outputs, (h, _) = theirs(packed)
    want = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)[0].numpy()
    ours = bilstms()
    state = {f"encoder.{name}": value for name, value in theirs.state_dict().items()}
    convert.bilstm_from_torch(state, ours, prefix="encoder.")
    mask = jnp.arange(7) < jnp.array(lengths)[:, None]
    got, got_h, _ = run(ours, x, mask)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(got_h, np.concatenate([h[2], h[3]], axis=1), atol=1e-5)

    back = torch.nn.LSTM(IN, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
    there = {k: torch.tensor(v) for k, v in convert.bilstm_to_torch(ours).items()}
    back.load_state_dict(there)
    with torch.no_grad():
        again = torch.nn.utils.rnn.pad_packed_sequence(back(packed)[0], batch_first=True)[0]
    np.testing.assert_allclose(again.numpy(), want, atol=1e-5)


def test_weights_of_another_lstm_are_refused():
    there = convert.bilstm_to_torch(bilstms())
    one_way = {k: v for k, v in there.items() if "reverse" not in k}
    with pytest.raises(InputError, match="has no weight_ih_l0_reverse; expected a bidirectional"):
        convert.bilstm_from_torch(one_way, bilstms())
    with pytest.raises(InputError, match="also has weight_ih_l1; expected 1 layers"):
        convert.bilstm_from_torch(there, bilstms()[:1])
    with pytest.raises(InputError, match=r"layer 0 of .*kernel is \(5, 16\); expected \(9, 16\)"):
        convert.bilstm_from_torch(there, [BiLSTM(9, HIDDEN, rngs=nnx.Rngs(0))])


def make(**options):
    sizes = dict(embedding_features=IN, hidden_features=HIDDEN, attention_units=UNITS)
    model = AttentionClassifier(
        VOCABULARY, head_features=HEAD, **sizes, **options, rngs=nnx.Rngs(3)
    )
    model.eval()
    return model


def notebook_network(vocabulary, features, hidden, units, head):
    """The network as the notebook writes it: its attention has no mask."""
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    layers, ops = keras.layers, keras.ops
    keras.utils.set_random_seed(0)

    class Attention(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.W1, self.W2, self.V = (layers.Dense(n) for n in (units, units, 1))

        def build(self, features_shape, hidden_shape):
            self.W1.build(features_shape)
            self.W2.build(hidden_shape)
            self.V.build((None, None, units))

        def call(self, features, hidden):
            score = self.V(ops.tanh(self.W1(features) + self.W2(ops.expand_dims(hidden, 1))))
            return ops.sum(ops.softmax(score, axis=1) * features, axis=1)

        def compute_output_shape(self, features_shape, hidden_shape):
            return (features_shape[0], features_shape[2])

    ids = layers.Input((None,), dtype="int32")
    x = layers.Embedding(vocabulary, features, mask_zero=True)(ids)
    lstm = dict(units=hidden, return_sequences=True, dropout=0.5)
    x = layers.Bidirectional(layers.LSTM(**lstm))(x)
    x, h, _, h_back, _ = layers.Bidirectional(layers.LSTM(**lstm, return_state=True))(x)
    context = Attention(units)(x, layers.Concatenate()([h, h_back]))
    x = layers.Dropout(0.5)(layers.Dense(head, activation="relu")(context))
    return keras.Model(ids, layers.Dense(1, activation="sigmoid")(x))


@pytest.fixture(scope="module")
def keras_model():
    model = notebook_network(VOCABULARY, IN, HIDDEN, UNITS, HEAD)
    rng = np.random.default_rng(0)
    for layer in layers_of(model):  # so that no bias is zero
        layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def keras_file(keras_model, tmp_path_factory):
    file = tmp_path_factory.mktemp("keras") / "notebook.keras"
    keras_model.save(file)
    return file


def layers_of(keras_model):
    return [layer for layer in keras_model.layers if layer.weights]


IDS = np.random.default_rng(1).integers(1, VOCABULARY, (4, 9)).astype(np.int32)
IDS[1, 5:] = IDS[3, 2:] = 0


@pytest.mark.slow
def test_keras(keras_model, tmp_path):
    model = make(mask_attention=False)
    convert.classifier_from_keras([x.get_weights() for x in layers_of(keras_model)], model)
    want = keras_model.predict(IDS, verbose=0)[:, 0]
    got = np.asarray(probabilities(call(model, IDS)[0]))[:, 1]
    assert want.std() > 0.01
    np.testing.assert_allclose(got, want, atol=1e-5)

    there = convert.classifier_to_keras(make(mask_attention=False))
    for layer, weights in zip(layers_of(keras_model), there, strict=True):
        layer.set_weights(weights)
    want = probabilities(call(make(mask_attention=False), IDS)[0])[:, 1]
    np.testing.assert_allclose(keras_model.predict(IDS, verbose=0)[:, 0], want, atol=1e-5)


def test_a_round_trip_through_keras_gives_the_same_model():
    model, other = make(), make()
    other.output.kernel[...] *= 0
    convert.classifier_from_keras(convert.classifier_to_keras(model), other)
    for name, want in weights_of(model).items():
        np.testing.assert_array_equal(weights_of(other)[name], want)


def test_weights_of_another_network_are_refused():
    layers = convert.classifier_to_keras(make())
    with pytest.raises(
        InputError, match=r"hold \[1, 6, 6, 6, 2\] weights; expected \[1, 6, 6, 2, 2"
    ):
        convert.classifier_from_keras(layers[:-1], make())
    with pytest.raises(InputError, match=r"embedding.embedding is \(29, 5\); expected \(30, 5\)"):
        convert.classifier_from_keras([[layers[0][0][1:]], *layers[1:]], make())


@pytest.mark.slow
def test_keras_files(keras_model, keras_file, tmp_path):
    weights_file = tmp_path / "notebook.weights.h5"
    keras_model.save_weights(weights_file)
    layers = [layer.get_weights() for layer in layers_of(keras_model)]
    for file in (keras_file, weights_file):
        for found, want in zip(read_keras(file), layers, strict=True):
            for x, y in zip(found, want, strict=True):
                np.testing.assert_array_equal(x, y)

    changed = [[2 * x for x in layer] for layer in layers]
    for name in ("changed.keras", "changed.weights.h5"):
        write_keras(tmp_path / name, changed, like=keras_file)
    keras_model.load_weights(tmp_path / "changed.weights.h5")
    try:
        for layer, want in zip(layers_of(keras_model), changed, strict=True):
            for x, y in zip(layer.get_weights(), want, strict=True):
                np.testing.assert_array_equal(x, y)
        keras_model.load_weights(tmp_path / "changed.keras")
    finally:
        keras_model.load_weights(weights_file)
    layers[0][0] = layers[0][0][1:]
    with pytest.raises(InputError, match=r"embedding/vars/0 is \(30, 5\); expected \(29, 5\)"):
        write_keras(tmp_path / "c.keras", layers, like=keras_file)


def test_other_files_are_refused(tmp_path):
    import h5py

    with pytest.raises(InputError, match="cannot be read as a Keras 3 file: No such file"):
        read_keras(tmp_path / "a.keras")
    (tmp_path / "a.weights.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="does not hold Keras's HDF5"):
        read_keras(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "b.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = file["layers/dense/vars/1"] = np.zeros(3)
    with pytest.raises(InputError, match=r"holds 0 embeddings, 0 Bidirectional\(LSTM\), 0 att"):
        read_keras(tmp_path / "b.weights.h5")
    with h5py.File(tmp_path / "b.weights.h5", "a") as file:
        file["layers/attention/query/vars/0"] = file["layers/attention/query/vars/1"] = np.zeros(3)
    with pytest.raises(InputError, match="layers/attention holds query; expected an attention's"):
        read_keras(tmp_path / "b.weights.h5")


@pytest.mark.slow
def test_the_comparison_finds_a_wrong_weight(keras_model):
    rng = np.random.default_rng(0)
    layers = [[rng.normal(size=w.shape) for w in x.get_weights()] for x in layers_of(keras_model)]
    model = make(mask_attention=False)
    convert.classifier_from_keras(layers, model)
    assert convert_check.difference_from_keras(layers, model) < 1e-6
    layers[3][0] = -layers[3][0]  # the attention's W1
    assert convert_check.difference_from_keras(layers, model) > 1e-3


@pytest.mark.slow
def test_the_command(keras_model, keras_file, tmp_path, capsys):
    pytest.importorskip("torch", reason="PyTorch is not installed")

    def run(*arguments):
        code = cli.main(["convert", *map(str, arguments)])
        return code, capsys.readouterr()

    ours, theirs, lstm = (tmp_path / name for name in ("a.safetensors", "a.keras", "a.pt"))
    code, said = run(f"--input={keras_file}", f"--output={ours}")
    assert code == 0 and "probabilities of the notebook's network in Keras: " in said.out
    assert run(f"--input={ours}", f"--output={theirs}", f"--like={keras_file}")[0] == 0
    w1, b1, w2, b2, v, _ = read_keras(theirs)[3]
    want = read_keras(keras_file)[3]
    for x, y in zip((w1, b1 + b2, w2, v), (want[0], want[1] + want[3], *want[2:5:2]), strict=True):
        np.testing.assert_array_equal(x, y)

    code, said = run(f"--input={ours}", f"--output={lstm}", "--prefix=encoder.")
    assert code == 0 and "outputs of torch.nn.LSTM: " in said.out
    back = tmp_path / "b.safetensors"
    assert run(f"--input={lstm}", f"--output={back}", "--prefix=encoder.")[0] == 0
    assert run(f"--input={back}", f"--output={lstm}")[0] == 0
    model, layers = make(), nnx.List(bilstms())
    load_safetensors(model, ours)
    load_safetensors(layers, back)
    for name, x in weights_of(layers).items():
        np.testing.assert_array_equal(x, weights_of(model)[f"encoder.{name}"])

    for arguments, message in (
        ((f"--input={ours}",), "--output is None; expected a file that ends with"),
        ((f"--input={ours}", f"--output={back}"), "expected one of --input and --output to end"),
        ((f"--input={ours}", f"--output={theirs}"), "--like is missing"),
        ((f"--input={lstm}", f"--output={back}", "--prefix=x."), "has no x.weight_ih_l0"),
        ((f"--input={keras_file}.pt", f"--output={back}"), "cannot be read: No such file"),
    ):
        code, said = run(*arguments)
        assert code == 2 and message in said.err and said.err.count("\n") == 1


@pytest.mark.slow
def test_real_reviews():
    """The notebook's sizes and padding, on 25 reviews of IMDB's test split."""
    from bahdanau_jax.data.tfds_folder import find_prepared, open_prepared
    from bahdanau_jax.data.vocabulary import Vocabulary

    root = Path(os.environ.get("TFDS_DATA_DIR") or "no such folder")
    folder = find_prepared(root, "imdb_reviews")
    if folder is None:
        pytest.skip("IMDB is not prepared in TFDS_DATA_DIR")
    texts = open_prepared(root, folder, splits=["test"]).read_texts("test")[::1_000]
    rows = Vocabulary.build(texts, size=10_000).encode_all(texts, max_length=500)
    ids = np.zeros((len(rows), 500), np.int32)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row

    theirs = notebook_network(10_000, 128, 64, 64, 20)
    rng = np.random.default_rng(0)
    layers = [[x + 0.03 * rng.normal(size=x.shape) for x in layer.get_weights()]
              for layer in layers_of(theirs)]  # fmt: skip
    layers[-1][0] *= 10  # for probabilities that differ, as in a trained network
    for layer, weights in zip(layers_of(theirs), layers, strict=True):
        layer.set_weights(weights)
    model = AttentionClassifier(10_000, mask_attention=False, rngs=nnx.Rngs(0))
    model.eval()
    convert.classifier_from_keras([x.get_weights() for x in layers_of(theirs)], model)
    want = theirs.predict(ids, batch_size=len(ids), verbose=0)[:, 0]
    got = np.asarray(probabilities(call(model, ids)[0]))[:, 1]
    assert want.std() > 0.03
    np.testing.assert_allclose(got, want, atol=1e-5)
