"""Prediction on the CPU kernel: looked-up inputs equal the products, int16 stays within its rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax import AttentionClassifier, BahdanauAttention, BiLSTM, lstm_implementation
from bahdanau_jax.layers.prediction import (
    PredictionAttention,
    PredictionBiLSTM,
    attention_for_prediction,
)
from bahdanau_jax.models.classifier import for_prediction
from bahdanau_jax.models.ngrams import NgramClassifier
from bahdanau_jax.models.with_ngrams import WithNgrams

needs_kernel = pytest.mark.skipif(
    lstm_implementation("auto")[0] != "native", reason="the CPU kernel does not run here"
)
pytestmark = needs_kernel
# features, hidden, words, batch, time; odd sizes, a hidden size on both sides of a vector, one above a block
SIZES = [(5, 3, 7, 4, 6), (8, 16, 20, 9, 12), (7, 19, 11, 35, 7), (131, 130, 6, 3, 4)]


def setting(features, hidden, words, batch, time):
    layer = BiLSTM(features, hidden, rngs=nnx.Rngs(0))
    random = np.random.default_rng(1)
    layer.forward.bias[...] = random.normal(size=4 * hidden)
    vectors = jnp.asarray(random.normal(size=(words, features)), jnp.float32)
    ids = jnp.asarray(random.integers(0, words, (batch, time)), jnp.int32)
    mask = jnp.asarray(random.random((batch, time)) < 0.7).at[0].set(False)
    return layer, vectors, ids, mask


@nnx.jit
def call(layer, *arguments):
    return layer(*arguments)


@nnx.jit(static_argnames="products")
def predict(layer, vectors, *arguments, products="float32"):
    return PredictionBiLSTM(layer, vectors, products=products)(*arguments)


def largest_difference(a, b):
    return max(
        float(np.abs(np.asarray(x) - np.asarray(y)).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.slow
def test_ids_give_what_their_vectors_give(sizes):
    layer, vectors, ids, mask = setting(*sizes)
    expected = call(layer, vectors[ids], mask)
    found = predict(layer, vectors, ids, mask)
    assert largest_difference(expected, found) < 2e-6
    assert not np.any(np.asarray(found[0])[~np.asarray(mask)])


def test_x64_changes_nothing():
    layer, vectors, ids, mask = setting(*SIZES[0])
    expected = PredictionBiLSTM(layer, vectors)(ids, mask)
    with jax.enable_x64(True):
        found = PredictionBiLSTM(layer, np.float64(vectors))(jnp.asarray(np.int64(ids)), mask)
    assert largest_difference(expected, found) < 1e-6


def test_an_id_outside_is_taken_for_the_nearest(sizes=SIZES[0]):
    layer, vectors, ids, mask = setting(*sizes)
    faster = PredictionBiLSTM(layer, vectors)
    outside = jnp.where(ids == 0, -5, jnp.where(ids == len(vectors) - 1, 10**9, ids))
    assert largest_difference(faster(outside, mask), faster(ids, mask)) == 0


def rounded_bilstm(layer, inputs, mask):
    """The rounding in float64 NumPy: inputs and states in units of 1/4096, weights in units of their column."""
    outputs = []
    for one in (layer.forward, layer.backward):
        w, u, b = (
            np.asarray(x[...], np.float64) for x in (one.kernel, one.recurrent_kernel, one.bias)
        )
        every = np.concatenate([w, u])
        unit = np.maximum(
            abs(every).max(0) / 32767, abs(every).sum(0) / (2**31 / 4096 - len(every))
        )
        w, u = np.rint(w / unit) * unit, np.rint(u / unit) * unit
        x = np.rint(np.asarray(inputs, np.float64) * 4096) / 4096
        hidden = len(u)
        out = np.zeros((*inputs.shape[:2], hidden))
        for row in range(len(x)):
            h, c = np.zeros(hidden), np.zeros(hidden)
            steps = range(x.shape[1])
            for t in reversed(steps) if one is layer.backward else steps:
                if mask[row, t]:
                    i, f, g, o = np.split(x[row, t] @ w + np.rint(h * 4096) / 4096 @ u + b, 4)
                    c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
                    h = np.tanh(c) / (1 + np.exp(-o))
                    out[row, t] = h
        outputs.append(out)
    return np.concatenate(outputs, axis=-1)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.slow
def test_int16_computes_the_rounded_layer(sizes):
    layer, vectors, ids, mask = setting(*sizes)
    inputs = jnp.tanh(vectors[ids])
    found, _ = predict(layer, None, inputs, mask, products="int16")
    expected = rounded_bilstm(layer, inputs, np.asarray(mask))
    exact, _ = call(layer, inputs, mask)
    # A state near the middle of two units may be rounded to the other one.
    assert np.abs(found - expected).max() < 5e-5
    assert 0 < largest_difference(found, exact) < 5e-4


def test_int16_sums_do_not_overflow():
    """The largest sums: all weights, inputs and states at their limits."""
    layer = BiLSTM(300, 8, rngs=nnx.Rngs(0))
    for one in (layer.forward, layer.backward):
        one.kernel[...], one.recurrent_kernel[...] = (
            jnp.ones_like(one.kernel),
            jnp.ones_like(one.recurrent_kernel),
        )
    inputs = jnp.ones((2, 3, 300))
    mask = jnp.ones((2, 3), bool)
    expected = call(layer, inputs, mask)
    found = predict(layer, None, inputs, mask, products="int16")
    assert largest_difference(found, expected) < 1e-3


@pytest.mark.parametrize("products, tolerance", [("float32", 2e-6), ("int16", 1e-3)])
def test_saturated_gates(products, tolerance):
    layer, vectors, ids, mask = setting(*SIZES[0])
    for one in (layer.forward, layer.backward):
        one.bias[...] = jnp.asarray([500.0, -500, 90, -90] * 3)
    expected = call(layer, vectors[ids], mask)
    found = predict(layer, vectors, ids, mask, products=products)
    assert largest_difference(expected, found) < tolerance


def plain_attention(attention, query, keys, mask):
    """Bahdanau's attention in float64 NumPy, row by row."""
    w_query, w_key, bias, v = (
        np.asarray(x[...], np.float64)
        for x in (
            attention.query_kernel,
            attention.key_kernel,
            attention.bias,
            attention.score_kernel,
        )
    )
    contexts, weights = np.zeros((len(query), keys.shape[2])), np.zeros(mask.shape)
    for b, real in enumerate(mask):
        if real.any():
            e = np.exp(np.tanh(keys[b, real] @ w_key + query[b] @ w_query + bias) @ v)
            weights[b, real] = e / e.sum()
            contexts[b] = weights[b] @ keys[b]
    return contexts, weights


# query and key features, units, batch, time; one part of a panel and several, many blocks of positions
@pytest.mark.parametrize("sizes", [(3, 5, 2, 4, 7), (8, 70, 130, 3, 70)])
def test_attention_equals_the_plain_loop(sizes):
    query_features, features, units, batch, time = sizes
    attention = BahdanauAttention(query_features, features, units, rngs=nnx.Rngs(0))
    random = np.random.default_rng(0)
    attention.bias[...] = random.normal(size=units)
    attention.score_kernel[...] *= 5
    query = np.float32(random.normal(size=(batch, query_features)))
    keys = np.float32(random.normal(size=(batch, time, features)))
    mask = random.random((batch, time)) < 0.7
    mask[0] = False
    found = call(PredictionAttention(attention), query, keys, mask)
    assert largest_difference(plain_attention(attention, query, keys, mask), found) < 3e-6
    assert not np.any(np.asarray(found[1])[~mask])
    whole = call(PredictionAttention(attention), query, keys)
    expected = plain_attention(attention, query, keys, np.ones_like(mask))
    assert largest_difference(expected, whole) < 3e-6


def test_only_the_plain_attention_is_replaced():
    def replaced(**options):
        attention = BahdanauAttention(2, 2, 2, rngs=nnx.Rngs(0), **options)
        return attention_for_prediction(attention) is not attention

    assert replaced()
    assert not (replaced(num_heads=2) or replaced(normalized=True) or replaced(dtype=jnp.bfloat16))


@pytest.mark.parametrize("products, tolerance", [("float32", 1e-6), ("int16", 1e-3)])
@pytest.mark.slow
def test_a_classifier_for_prediction_gives_the_same(products, tolerance):
    network = AttentionClassifier(
        30, 3, embedding_features=6, hidden_features=5, attention_units=4, rngs=nnx.Rngs(0)
    )
    model = WithNgrams(network, NgramClassifier(n=2, rows=64, num_classes=3), ngram_share=0.5)
    model = nnx.view(model, deterministic=True, raise_if_not_found=False)
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 30, (5, 9)), jnp.int32)
    expected = call(model, ids)
    faster = for_prediction(model, products)
    assert faster.network.embedding is None
    assert largest_difference(call(faster, ids), expected) < tolerance
    assert largest_difference(call(model, ids), expected) == 0  # it stays as it was


@pytest.mark.slow
def test_what_cannot_be_had_is_named():
    ids = jnp.array([[1, 2]])
    scan = AttentionClassifier(
        9, embedding_features=2, hidden_features=2, implementation="scan", rngs=nnx.Rngs(0)
    )
    assert for_prediction(scan) is scan
    with pytest.raises(ValueError, match="products of int16 cannot be had: asked for"):
        for_prediction(scan, "int16")
    with pytest.raises(ValueError, match="products is 'int8'; expected one of float32, int16"):
        PredictionBiLSTM(BiLSTM(2, 2, rngs=nnx.Rngs(0)), products="int8")

    class Own(AttentionClassifier):
        def embed(self, ids):
            return super().embed(ids) * 2

    own = Own(9, embedding_features=2, hidden_features=2, rngs=nnx.Rngs(0))
    assert for_prediction(own) is own
    assert own(ids)[0].shape == (1, 1)
