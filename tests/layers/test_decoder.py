"""The decoder: its scan equals its steps and a loop in NumPy, under any mask, with and without attention."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.layers import BahdanauAttention, BahdanauDecoder

BATCH, STEPS, TIME, FEATURES, HIDDEN, VALUES = 3, 5, 6, 4, 3, 2
cells = pytest.mark.parametrize("cell", ["gru", "lstm"])


def make(cell, with_attention=True, attention=None, **options) -> Any:
    rngs = nnx.Rngs(0)
    if with_attention:
        attention = BahdanauAttention(HIDDEN, VALUES, 7, rngs=rngs)
    decoder = BahdanauDecoder(
        FEATURES, HIDDEN, context_features=VALUES, cell=cell, attention=attention, rngs=rngs, **options
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    decoder.cell.bias[...] = jnp.asarray(draw(*decoder.cell.bias.shape))
    a: dict[str, Any] = dict(
        inputs=draw(BATCH, STEPS, FEATURES), h=draw(BATCH, HIDDEN), keys=draw(BATCH, TIME, VALUES)
    )
    a["state"] = a["h"] if cell == "gru" else (a["h"], draw(BATCH, HIDDEN))
    a["source_mask"] = rng.random((BATCH, TIME)) < 0.7
    a["mask"] = rng.random((BATCH, STEPS)) < 0.6
    return decoder, a


def memory_of(decoder, a):
    if decoder.attention is None:
        return a["keys"][:, 0]
    return decoder.attention.project(a["keys"], mask=a["source_mask"])


def in_numpy(decoder, a, mask):
    """The docstring's equations in float64, one row and step at a time."""
    cell = {k: np.float64(p[...]) for k, p in nnx.state(decoder.cell, nnx.Param).items()}
    outputs, contexts = np.zeros((BATCH, STEPS, HIDDEN)), np.zeros((BATCH, STEPS, VALUES))
    weights = np.zeros((BATCH, STEPS, TIME))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for b in range(BATCH):
        h: Any = np.float64(a["h"][b])
        c: Any = None
        if isinstance(a["state"], tuple):
            c = np.float64(a["state"][1][b])
        for t in np.flatnonzero(mask[b]):
            if decoder.attention is None:
                context = a["keys"][b, 0]
            else:
                w = {
                    k: np.float64(p[...])
                    for k, p in nnx.state(decoder.attention, nnx.Param).items()
                }
                hidden = np.tanh(a["keys"][b] @ w["key_kernel"] + h @ w["query_kernel"] + w["bias"])
                scores = np.exp(hidden @ w["score_kernel"]) * a["source_mask"][b]
                weights[b, t] = scores / scores.sum()
                context = weights[b, t] @ a["keys"][b]
            x = np.concatenate([a["inputs"][b, t], context]) @ cell["kernel"] + cell["bias"]
            if c is not None:
                i, f, g, o = np.split(x + h @ cell["recurrent_kernel"], 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                u = np.split(cell["recurrent_kernel"], 3, axis=1)
                r, z = (sigmoid(p + h @ q) for p, q in zip(np.split(x, 3)[:2], u[:2], strict=True))
                n = np.split(x, 3)[2]
                if decoder.cell.reset_after:
                    n = np.tanh(n + r * (h @ u[2] + cell["recurrent_bias"]))
                else:
                    n = np.tanh(n + (r * h) @ u[2])
                h = (1 - z) * n + z * h
            outputs[b, t], contexts[b, t] = h, context
    return outputs, contexts, weights


@pytest.mark.parametrize(
    ("cell", "with_attention", "options"),
    [
        ("gru", True, {}),
        ("gru", True, {"reset_after": False}),
        ("gru", False, {}),
        ("lstm", True, {}),
        ("lstm", False, {}),
    ],
)
@pytest.mark.slow
def test_equals_a_plain_numpy_loop(cell, with_attention, options):
    decoder, a = make(cell, with_attention, **options)
    found = nnx.jit(type(decoder).__call__)(
        decoder, a["inputs"], memory_of(decoder, a), a["state"], a["mask"]
    )
    outputs, contexts, weights = in_numpy(decoder, a, a["mask"])
    np.testing.assert_allclose(found.outputs, outputs, atol=1e-5)
    np.testing.assert_allclose(found.contexts, contexts, atol=1e-5)
    if with_attention:
        np.testing.assert_allclose(found.weights, weights, atol=1e-5)
        assert (
            np.asarray(found.weights)[~np.repeat(a["source_mask"][:, None], STEPS, 1)] == 0
        ).all()
    else:
        assert found.weights is None
    assert (np.asarray(found.outputs)[~a["mask"]] == 0).all()


@cells
def test_steps_equal_the_scan(cell):
    decoder, a = make(cell)
    memory, state = memory_of(decoder, a), a["state"]
    step = nnx.jit(type(decoder).step)
    whole = nnx.jit(type(decoder).__call__)(decoder, a["inputs"], memory, state)
    for t in range(STEPS):
        one = step(decoder, a["inputs"][:, t], memory, state)
        for got, want in zip(one[:3], whole[:3], strict=True):
            np.testing.assert_allclose(got, want[:, t], atol=1e-6)
        state = one.state
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), state, whole.state)


@cells
def test_what_is_masked_changes_nothing(cell):
    decoder, a = make(cell)

    @nnx.jit
    def value_and_grad(decoder, inputs, keys):
        def loss(decoder, inputs, keys):
            memory = memory_of(decoder, {**a, "keys": keys})
            found = decoder(inputs, memory, a["state"], mask=a["mask"])
            return jnp.sum(found.outputs**2) + jnp.sum(found.contexts)

        return nnx.value_and_grad(loss, argnums=(0, 1, 2))(decoder, inputs, keys)

    want = value_and_grad(decoder, a["inputs"], a["keys"])
    inputs = np.where(a["mask"][..., None], a["inputs"], np.nan)
    keys = np.where(a["source_mask"][..., None], a["keys"], np.inf)
    got = value_and_grad(decoder, inputs, keys)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(x, y)
    _, (_, of_inputs, of_keys) = got
    assert (np.asarray(of_inputs)[~a["mask"]] == 0).all()
    assert (np.asarray(of_keys)[~a["source_mask"]] == 0).all()


@pytest.mark.slow
def test_the_gradient_equals_finite_differences_in_float64():
    with jax.enable_x64(True):
        decoder, a = make("gru")
        graph, weights = nnx.split(decoder)
        weights = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), weights)
        a = {k: v if v.dtype == bool else v.astype(float) for k, v in a.items()}

        @jax.jit
        def loss(weights):
            decoder = nnx.merge(graph, weights)
            found = decoder(a["inputs"], memory_of(decoder, a), a["state"], mask=a["mask"])
            return jnp.sum(jnp.sin(found.outputs)) + jnp.sum(found.weights**2)

        gradients = jax.jit(jax.grad(loss))(weights)
        rng = np.random.default_rng(1)
        for _ in range(5):
            along = jax.tree.map(lambda x: rng.normal(size=x.shape), weights)
            ends = [
                float(loss(jax.tree.map(lambda x, d: x + e * d, weights, along)))  # noqa: B023
                for e in (1e-6, -1e-6)
            ]
            want = (ends[0] - ends[1]) / 2e-6
            products = jax.tree.map(lambda g, d: float(np.vdot(g, d)), gradients, along)
            np.testing.assert_allclose(sum(jax.tree.leaves(products)), want, rtol=1e-6)


def test_an_attention_of_ones_own():
    class First(nnx.Module):
        def attend(self, query, memory):
            return memory[:, 0], jnp.zeros(memory.shape[:2]).at[:, 0].set(1)

    decoder, a = make("gru", with_attention=False)
    want = decoder(a["inputs"], a["keys"][:, 0], a["state"])
    decoder, _ = make("gru", with_attention=False, attention=First())
    got = decoder(a["inputs"], a["keys"], a["state"])
    np.testing.assert_allclose(got.outputs, want.outputs, atol=1e-6)
    assert got.weights.shape == (BATCH, STEPS, TIME)


def test_what_does_not_fit_is_named():
    decoder, a = make("gru")
    memory = memory_of(decoder, a)
    with pytest.raises(ValueError, match=r"inputs: expected \[batch, steps, features\], got shape"):
        decoder(a["inputs"][0], memory, a["state"])
    with pytest.raises(ValueError, match=r"mask: expected bool \(3, 5\), True = real, got int"):
        decoder(a["inputs"], memory, a["state"], mask=a["mask"].astype(int))
    with pytest.raises(
        ValueError, match=r"initial_state: expected shapes \[\(3, 3\)\], got \[\(3, 2\)\]"
    ):
        decoder.step(a["inputs"][:, 0], memory, a["state"][:, :2])
    with pytest.raises(ValueError, match="cell is 'rnn'; expected 'gru' or 'lstm'"):
        make("rnn")
