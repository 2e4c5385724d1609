"""Initializers as arguments; without them, weights are those that earlier versions drew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.layers import LSTM, BahdanauAttention, BiGRU, BiLSTM

GLOROT, ORTHOGONAL = nnx.initializers.glorot_uniform(), nnx.initializers.orthogonal()


def parameters(layer):
    return {
        name: np.asarray(x) for name, x in nnx.to_pure_dict(nnx.state(layer, nnx.Param)).items()
    }


def test_defaults_are_drawn_from_the_same_keys_in_the_same_order():
    rngs = nnx.Rngs(3)
    lstm, attention = LSTM(5, 2, rngs=rngs), BahdanauAttention(5, 4, 3, rngs=rngs)
    keys = nnx.Rngs(3)
    drawn = parameters(lstm) | {f"attention {k}": v for k, v in parameters(attention).items()}
    want = {
        "kernel": GLOROT(keys.params(), (5, 8)),
        "recurrent_kernel": ORTHOGONAL(keys.params(), (2, 8)),
        "bias": [0, 0, 1, 1, 0, 0, 0, 0],
        "attention query_kernel": GLOROT(keys.params(), (5, 3)),
        "attention key_kernel": GLOROT(keys.params(), (4, 3)),
        "attention bias": [0, 0, 0],
        "attention score_kernel": GLOROT(keys.params(), (3, 1))[:, 0],
    }
    assert drawn.keys() == want.keys()
    for name, value in drawn.items():
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, value.dtype.type(want[name]), err_msg=name)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_starts_as_the_paper_does(heads):
    normal = nnx.initializers.normal(0.001)
    zeros, ones = nnx.initializers.zeros, nnx.initializers.ones
    attention = BahdanauAttention(
        200, 200, 50, num_heads=heads, kernel_init=normal, score_kernel_init=zeros, bias_init=ones,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    found = parameters(attention)
    for name in ("query_kernel", "key_kernel"):
        np.testing.assert_allclose(found[name].std(), 0.001, rtol=0.05)
    np.testing.assert_array_equal(found["score_kernel"], np.zeros(heads * 50))
    np.testing.assert_array_equal(found["bias"], np.ones(heads * 50))


def test_recurrent_layers_take_initializers():
    def of(value):
        return lambda key, shape, dtype=jnp.float32: jnp.full(shape, value, dtype)

    encoder = BiLSTM(
        3, 2, kernel_init=of(1), recurrent_kernel_init=of(2), bias_init=of(3), rngs=nnx.Rngs(0)
    )
    for direction in (encoder.forward, encoder.backward):
        found = parameters(direction)
        assert {name: set(x.flat) for name, x in found.items()} == {
            "kernel": {1.0}, "recurrent_kernel": {2.0}, "bias": {3.0},
        }  # fmt: skip
    gru = BiGRU(
        3, 2, kernel_init=of(1), recurrent_kernel_init=of(2), bias_init=of(3), rngs=nnx.Rngs(0)
    )
    for direction in (gru.forward, gru.backward):
        found = parameters(direction)
        assert {name: set(x.flat) for name, x in found.items()} == {
            "kernel": {1.0}, "recurrent_kernel": {2.0}, "bias": {3.0}, "recurrent_bias": {3.0},
        }  # fmt: skip
    drawn = LSTM(3, 2, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(0)).bias[...]
    assert len(set(np.asarray(drawn))) == 8
    assert jax.tree.leaves(nnx.state(encoder, nnx.RngState)) == []
