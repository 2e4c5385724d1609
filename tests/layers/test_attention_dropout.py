"""Dropout on attention weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.layers import BahdanauAttention, additive_attention

QUERY = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
KEYS = np.random.default_rng(1).normal(size=(3, 5, 2)).astype(np.float32)
MASK = np.arange(5) < np.array([[5], [2], [0]])


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.slow
def test_dropout_scales_or_zeroes_the_weights_that_average_the_values(heads):
    make = dict(query_features=2, key_features=2, units=3, num_heads=heads)
    attention = BahdanauAttention(**make, dropout=0.5, rngs=nnx.Rngs(0))
    plain = BahdanauAttention(**make, rngs=nnx.Rngs(0))
    want = plain(QUERY, KEYS, mask=MASK)
    context, weights = attention(QUERY, KEYS, mask=MASK)
    ratio = np.asarray(weights)[want[1] > 0] / np.asarray(want[1])[want[1] > 0]
    np.testing.assert_allclose(ratio, np.where(ratio > 1, 2, 0), rtol=1e-6)
    assert 0.2 < (ratio == 0).mean() < 0.8
    by_head = np.asarray(weights).reshape(3, 4, heads, 5)
    averages = np.einsum("bqht,btv->bqhv", by_head, KEYS).reshape(3, 4, -1)
    np.testing.assert_allclose(context, averages, atol=1e-6)
    assert (attention(QUERY, KEYS, mask=MASK)[1] != weights).any()  # drawn anew
    attention.eval()
    for got, x in zip(attention(QUERY, KEYS, mask=MASK), want, strict=True):
        np.testing.assert_array_equal(got, x)
    single = attention(QUERY[:, 0], KEYS, mask=MASK)[1]
    attention.train()
    assert attention(QUERY[:, 0], KEYS, mask=MASK)[1].shape == single.shape


def test_without_dropout_there_is_no_random_state():
    attention = BahdanauAttention(2, 2, 3, rngs=nnx.Rngs(0))
    assert not nnx.state(attention, nnx.RngState)
    assert nnx.state(BahdanauAttention(2, 2, 3, dropout=0.1, rngs=nnx.Rngs(0)), nnx.RngState)


def test_gradients_are_those_of_the_formula_with_the_same_mask():
    rng = np.random.default_rng(2)
    scale = jnp.asarray(rng.integers(0, 2, (3, 4, 5)) * 2, jnp.float32)
    v = jnp.asarray(rng.normal(size=2), jnp.float32)

    def ours(query, keys, scale):
        return additive_attention(query, keys, keys, v, mask=MASK, weight_scale=scale)[0]

    def formula(query, keys, scale):
        scores = jnp.tanh(query[:, :, None] + keys[:, None]) @ v
        e = jnp.exp(scores) * MASK[:, None]
        return (scale * e / (e.sum(-1, keepdims=True) + ~MASK[:, None, :1])) @ keys  # no 0 / 0

    got, want = (
        jax.jit(jax.grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), argnums=(0, 1)))(
            QUERY, KEYS, scale
        )
        for f in (ours, formula)
    )
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    of_scale = jax.grad(lambda scale: jnp.sum(ours(QUERY, KEYS, scale)))(scale)
    assert (of_scale == 0).all()
