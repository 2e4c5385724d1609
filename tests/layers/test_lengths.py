"""Lengths equal the masks that they stand for, in every layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax import AttentionClassifier
from bahdanau_jax.layers import (
    LSTM,
    BahdanauAttention,
    BiLSTM,
    additive_attention,
    bilstm,
    lstm,
    masked_softmax,
)

X = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
WEIGHTS = [np.full((2, *shape), 0.5, np.float32) for shape in ((2, 4), (1, 4), (4,))]
ATTENTION = BahdanauAttention(2, 2, 2, rngs=nnx.Rngs(0))
MODEL = AttentionClassifier(9, embedding_features=2, hidden_features=2, rngs=nnx.Rngs(0))
MODEL.eval()
IDS = np.random.default_rng(0).integers(0, 9, (3, 4))  # 0 inside a text too
LAYERS = {
    "lstm": lambda **masks: lstm(X, *(w[0] for w in WEIGHTS), **masks),
    "bilstm": lambda **masks: bilstm(X, *WEIGHTS, **masks),
    "LSTM": lambda **masks: LSTM(2, 2, rngs=nnx.Rngs(0))(X, **masks),
    "BiLSTM": lambda **masks: BiLSTM(2, 2, rngs=nnx.Rngs(0))(X, **masks),
    "additive_attention": lambda **masks: additive_attention(X, X, X, np.ones(2), **masks),
    "BahdanauAttention": lambda **masks: ATTENTION(X[:, 0], X, **masks),
    "project": lambda **masks: ATTENTION.project(X, **masks),
    "AttentionClassifier": lambda **masks: MODEL(IDS, **masks),
}


@pytest.mark.parametrize("name", LAYERS)
def test_lengths_equal_the_mask(name):
    layer = LAYERS[name]
    want = layer(mask=MASK)
    for lengths in ([4, 2, 0], np.array([9, 2, -1], np.int16)):
        for a, b in zip(
            jax.tree.leaves(layer(lengths=lengths)), jax.tree.leaves(want), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    for wrong, message in {
        (4, 2): r"lengths: expected integers \(3,\), got int32 \(2,\)",
        (4.0, 2.0, 0.0): r"lengths: expected integers \(3,\), got float32 \(3,\)",
    }.items():
        with pytest.raises(ValueError, match=message):
            layer(lengths=wrong)
    with pytest.raises(ValueError, match="mask, lengths: expected one of them, got both"):
        layer(mask=MASK, lengths=[4, 2, 0])
    with pytest.raises(ValueError, match=r"mask: expected bool \(3, 4\)"):
        layer(mask=MASK[:2])


def test_lengths_may_be_traced():
    got = jax.jit(lambda lengths: LAYERS["bilstm"](lengths=lengths))(jnp.array([4, 2, 0]))
    for a, b in zip(
        jax.tree.leaves(got), jax.tree.leaves(LAYERS["bilstm"](mask=MASK)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("mask", [np.ones((3, 4)), np.ones((2, 4), bool), np.ones((1, 3, 4), bool)])
def test_masked_softmax_names_a_mask_that_does_not_fit(mask):
    with pytest.raises(ValueError, match=r"mask: expected bool, as the scores \(3, 4\), .* got"):
        masked_softmax(np.zeros((3, 4)), mask)
