"""Converted weights give what the other framework gives, on random input with padding, and come back."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax import AttentionClassifier, BiLSTM, InputError, convert
from bahdanau_jax.objective import probabilities
from bahdanau_jax.weights import weights_of

pytestmark = [
    # Keras's own, as its variables become NumPy arrays; and what it says of the notebook's attention.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Layer 'attention' .* was passed an input with a mask"),
]

IN, HIDDEN, UNITS, HEAD, VOCABULARY = 5, 4, 3, 6, 30


def bilstms(seed=0):
    return [BiLSTM(width, HIDDEN, rngs=nnx.Rngs(seed)) for width in (IN, 2 * HIDDEN)]


def run(layers, x, mask):
    for layer in layers:
        x, (h, c) = layer(x, mask)
    return x, h, c


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


def test_what_is_no_such_lstm_is_refused():
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


@pytest.fixture(scope="module")
def keras_model():
    """The notebook's network, as it is written there: its attention has no mask."""
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    layers, ops = keras.layers, keras.ops
    keras.utils.set_random_seed(0)

    class Attention(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.w1, self.w2, self.v = (layers.Dense(n) for n in (units, units, 1))

        def build(self, features_shape, hidden_shape):
            self.w1.build(features_shape)
            self.w2.build(hidden_shape)
            self.v.build((None, None, UNITS))

        def call(self, features, hidden):
            score = self.v(ops.tanh(self.w1(features) + self.w2(ops.expand_dims(hidden, 1))))
            return ops.sum(ops.softmax(score, axis=1) * features, axis=1)

        def compute_output_shape(self, features_shape, hidden_shape):
            return (features_shape[0], features_shape[2])

    ids = layers.Input((None,), dtype="int32")
    x = layers.Embedding(VOCABULARY, IN, mask_zero=True)(ids)
    lstm = dict(units=HIDDEN, return_sequences=True, dropout=0.5)
    x = layers.Bidirectional(layers.LSTM(**lstm))(x)
    x, h, _, h_back, _ = layers.Bidirectional(layers.LSTM(**lstm, return_state=True))(x)
    context = Attention(UNITS)(x, layers.Concatenate()([h, h_back]))
    hidden = layers.Dropout(0.5)(layers.Dense(HEAD, activation="relu")(context))
    model = keras.Model(ids, layers.Dense(1, activation="sigmoid")(hidden))
    rng = np.random.default_rng(0)
    for layer in layers_of(model):  # no zero bias
        layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return model


def layers_of(keras_model):
    return [layer for layer in keras_model.layers if layer.weights]


IDS = np.random.default_rng(1).integers(1, VOCABULARY, (4, 9)).astype(np.int32)
IDS[1, 5:] = IDS[3, 2:] = 0


def test_keras(keras_model, tmp_path):
    model = make(mask_attention=False)
    convert.classifier_from_keras([x.get_weights() for x in layers_of(keras_model)], model)
    want = np.asarray(keras_model(IDS))[:, 0]
    got = np.asarray(probabilities(model(jnp.asarray(IDS))[0]))[:, 1]
    assert want.std() > 0.01
    np.testing.assert_allclose(got, want, atol=1e-5)

    there = convert.classifier_to_keras(make(mask_attention=False))
    for layer, weights in zip(layers_of(keras_model), there, strict=True):
        layer.set_weights(weights)
    want = probabilities(make(mask_attention=False)(jnp.asarray(IDS))[0])[:, 1]
    np.testing.assert_allclose(np.asarray(keras_model(IDS))[:, 0], want, atol=1e-5)


def test_there_and_back_is_the_same_model():
    model, other = make(), make()
    other.output.kernel[...] *= 0
    convert.classifier_from_keras(convert.classifier_to_keras(model), other)
    for name, want in weights_of(model).items():
        np.testing.assert_array_equal(weights_of(other)[name], want)


def test_what_is_no_such_model_is_refused():
    layers = convert.classifier_to_keras(make())
    with pytest.raises(
        InputError, match=r"hold \[1, 6, 6, 6, 2\] weights; expected \[1, 6, 6, 6, 2, 2"
    ):
        convert.classifier_from_keras(layers[:-1], make())
    with pytest.raises(InputError, match=r"embedding.embedding is \(29, 5\); expected \(30, 5\)"):
        convert.classifier_from_keras([[layers[0][0][1:]], *layers[1:]], make())
