"""Resets inside a sequence and recurrent dropout against a plain loop in float64 and Keras."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from plain_lstm import make, masks, numpy_lstm

from bahdanau_jax.layers import LSTM, BiLSTM, bilstm, lstm

BATCH, TIME, FEATURES, HIDDEN = 3, 5, 2, 2
SIZES = dict(batch=BATCH, time=TIME, features=FEATURES, hidden=HIDDEN)
NAMES = list(make(0))  # x, the weights, h0 and c0
MASK = np.array([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], bool)
# Row 0 starts a sequence at the last real step, row 1 at its first and at its last one and at masked steps.
RESETS = np.array([[0, 0, 1, 0, 1], [1, 1, 0, 1, 1], [0, 1, 0, 0, 0]], bool)
SCALE = 2.0 * np.random.default_rng(0).integers(0, 2, (BATCH, HIDDEN))
SCALE[0] = 2, 0
OPTIONS = {
    "resets": dict(resets=RESETS),
    "recurrent dropout": dict(recurrent_scale=SCALE),
    "both": dict(resets=RESETS, recurrent_scale=SCALE),
}


def ours(a, mask, **options):
    x, kernel, recurrent_kernel, bias, h, c = (a[k] for k in NAMES)
    mask = None if mask is None else jnp.asarray(mask)
    outputs, state = lstm(
        x, kernel, recurrent_kernel, bias, mask=mask, initial_state=(h, c), **options
    )
    return outputs, *state


def plain(a, mask, **options):
    mask = np.ones((BATCH, TIME), bool) if mask is None else mask
    return numpy_lstm(a["x"], mask, *(a[k] for k in NAMES[1:]), xp=jnp, **options)


def results(function, a, mask, second, **options):
    """Outputs, h and c, the gradients of a function of them and, if `second`, a derivative of these."""

    def loss(a):
        ys = function(a, mask, **options)
        return sum(jnp.sum(jnp.sin(y)) for y in ys), ys

    gradient = jax.grad(loss, has_aux=True)
    return jax.jvp(gradient, (a,), (a,)) if second else gradient(a)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "masked", "reverse"),
    [
        ("both", True, False),
        ("both", True, True),
        ("resets", False, True),
        ("recurrent dropout", False, False),
    ],
)
def test_equals_the_plain_loop_with_derivatives(name, masked, reverse):
    options, mask = OPTIONS[name] | dict(reverse=reverse), MASK if masked else None
    second = masked and reverse  # slow to compile
    with jax.enable_x64(True):
        a = make(1, **SIZES, dtype=np.float64)
        got, want = (
            jax.jit(lambda a, f=f: results(f, a, mask, second, **options))(a) for f in (ours, plain)
        )
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-10)
    a = make(1, **SIZES)
    every = np.ones((BATCH, TIME), bool) if mask is None else mask
    want = numpy_lstm(a["x"], every, *(a[k] for k in NAMES[1:]), **options)
    for chunk_size in (0, 2):
        for x, y in zip(ours(a, mask, **options, chunk_size=chunk_size), want, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)


def test_each_sequence_runs_as_if_it_were_alone():
    """Three documents of 4, 1 and 3 words in one row, with padding between them, through both directions."""
    encoder = BiLSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    documents = [rng.normal(size=(1, n, FEATURES)).astype(np.float32) for n in (4, 1, 3)]
    padding = np.full((1, 2, FEATURES), np.nan, np.float32)
    row, mask, resets, places = [], [], [], []
    for document in documents:
        places.append(sum(x.shape[1] for x in row))
        row += [document, padding]
        mask += [True] * document.shape[1] + [False] * 2
        resets += [True] + [False] * (document.shape[1] - 1) + [True, False]  # one under the mask

    def loss(row):
        outputs, state = encoder(row, np.array([mask]), resets=np.array([resets]))
        return jnp.sum(jnp.sin(outputs)), (outputs, state)

    gradient, (outputs, (h, c)) = jax.jit(jax.grad(loss, has_aux=True))(np.concatenate(row, 1))

    @jax.jit
    def alone_of(document):
        def loss(document):
            outputs, state = encoder(document)
            return jnp.sum(jnp.sin(outputs)), (outputs, state)

        return jax.grad(loss, has_aux=True)(document)

    for document, place in zip(documents, places, strict=True):
        here = slice(place, place + document.shape[1])
        of_alone, (alone, state) = alone_of(document)
        np.testing.assert_allclose(outputs[:, here], alone, atol=1e-6)
        np.testing.assert_allclose(gradient[:, here], of_alone, atol=1e-6)
        # The forward direction ends with the last document, the backward one with the first.
        half = {0: slice(HIDDEN, None), places[-1]: slice(HIDDEN)}.get(place)
        if half:
            for got, want in zip((h, c), state, strict=True):
                np.testing.assert_allclose(got[:, half], want[:, half], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_both_directions_and_vmap_equal_single_calls(name):
    two = [make(seed, **SIZES) for seed in (2, 3)]
    x, mask, options = two[0]["x"], jnp.asarray(MASK), OPTIONS[name]
    weights = [np.stack([a[k] for a in two]) for k in ("kernel", "recurrent_kernel", "bias")]
    state = tuple(np.stack([a[k] for a in two]) for k in ("h0", "c0"))
    if "recurrent_scale" in options:
        options = options | dict(recurrent_scale=np.stack([SCALE, SCALE[::-1]]))
    outputs, (h, c) = bilstm(x, *weights, mask=mask, initial_state=state, **options)
    for d, (a, reverse) in enumerate(zip(two, (False, True), strict=True)):
        one = {k: v[d] if k == "recurrent_scale" else v for k, v in options.items()}
        want = numpy_lstm(*([x, MASK] + [a[k] for k in NAMES[1:]]), reverse=reverse, **one)
        half = outputs[..., d * HIDDEN : (d + 1) * HIDDEN]
        for got, y in zip((half, h[d], c[d]), want, strict=True):
            np.testing.assert_allclose(got, y, atol=1e-5)

    def alone(x, mask, state, options):
        return bilstm(x[None], *weights, mask=mask[None],
                      initial_state=tuple(s[:, None] for s in state),
                      **{k: v[:, None] if k == "recurrent_scale" else v[None]
                         for k, v in options.items()})  # fmt: skip

    axes = {k: 1 if k == "recurrent_scale" else 0 for k in options}
    outputs_of_rows, (h_of_rows, _) = jax.jit(jax.vmap(alone, (0, 0, 1, axes)))(
        x, mask, state, options
    )
    np.testing.assert_allclose(outputs_of_rows[:, 0], outputs, atol=1e-6)
    np.testing.assert_allclose(h_of_rows[:, :, 0].swapaxes(0, 1), h, atol=1e-6)


@pytest.mark.slow
def test_recurrent_dropout_equals_that_of_keras_with_the_same_mask():
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    a, scale = make(4, **SIZES), jnp.asarray(SCALE, jnp.float32)
    cell = keras.layers.LSTMCell(HIDDEN, recurrent_dropout=0.5)
    cell.implementation = 1  # 2 draws no recurrent dropout
    cell.get_recurrent_dropout_mask = lambda step_input: [scale] * 4
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    layer.build((BATCH, TIME, FEATURES))
    mask = masks(1, BATCH, TIME)["behind"]

    def theirs(a):
        (outputs, h, c), _ = layer.stateless_call(
            [a["kernel"], a["recurrent_kernel"], a["bias"]],
            [v.value for v in layer.non_trainable_variables],
            a["x"], initial_state=[a["h0"], a["c0"]], mask=jnp.asarray(mask), training=True,
        )  # fmt: skip
        return jnp.where(mask[:, :, None], outputs, 0), h, c

    def gradients(function):
        def loss(a):
            ys = function(a)
            return sum(jnp.sum(jnp.sin(y)) for y in ys), ys

        return jax.jit(jax.grad(loss, has_aux=True))(a)

    got = gradients(lambda a: ours(a, mask, recurrent_scale=scale))
    want = gradients(theirs)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.slow
def test_recurrent_dropout_draws_one_mask_per_sequence_and_direction():
    x = make(5, **SIZES)["x"]
    encoder = BiLSTM(FEATURES, 8, recurrent_dropout=0.5, rngs=nnx.Rngs(0))
    directions = encoder.forward, encoder.backward
    drawn = [np.asarray(d.recurrent_dropout_mask(x)) for d in directions]
    assert drawn[0].shape == (BATCH, 8) and set(np.unique(drawn)) == {0.0, 2.0}
    assert (drawn[0] != drawn[1]).any() and (drawn[0][0] != drawn[0][1]).any()
    encoder = BiLSTM(FEATURES, 8, recurrent_dropout=0.5, rngs=nnx.Rngs(0))  # draws the same again
    outputs, _ = encoder(x)
    for d, (layer, reverse) in enumerate(
        zip((encoder.forward, encoder.backward), (False, True), strict=True)
    ):
        weights = (np.asarray(w[...]) for w in (layer.kernel, layer.recurrent_kernel, layer.bias))
        zeros, every = np.zeros((BATCH, 8)), np.ones((BATCH, TIME), bool)
        want, *_ = numpy_lstm(
            x, every, *weights, zeros, zeros, reverse=reverse, recurrent_scale=drawn[d]
        )
        np.testing.assert_allclose(outputs[..., 8 * d : 8 * d + 8], want, atol=1e-5)
    encoder.eval()
    assert encoder.forward.recurrent_dropout_mask(x) is None
    gradient = jax.grad(
        lambda scale: jnp.sum(ours(make(5, **SIZES), None, recurrent_scale=scale)[0])
    )(jnp.asarray(SCALE))
    assert (gradient == 0).all()


@pytest.mark.parametrize("implementation", ["native", "fused", "cudnn"])
def test_other_implementations_refuse_by_name(implementation):
    a = make(6, **SIZES)
    with pytest.raises(ValueError, match=f"'{implementation}', .*: it takes no resets, which only"):
        ours(a, None, resets=RESETS, implementation=implementation)
    layer = LSTM(
        FEATURES, HIDDEN, recurrent_dropout=0.5, implementation=implementation, rngs=nnx.Rngs(0)
    )
    with pytest.raises(ValueError, match="it takes no recurrent dropout .*, which only 'scan'"):
        layer(a["x"])
    with pytest.raises(ValueError, match="implementation is 'fast'; expected one of"):
        ours(a, None, resets=RESETS, implementation="fast")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(resets=RESETS[:2]), r"resets: expected bool \(3, 5\), got bool \(2, 5\)"),
        (dict(resets=RESETS.astype(int)), r"resets: expected bool \(3, 5\), got int"),
        (dict(recurrent_scale=SCALE[:, :1]), r"recurrent_scale: expected shape \(3, 2\), got \(3, 1\)"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ours(make(0, **SIZES), None, **options)
