"""Every transformation of JAX through both implementations equals that of plain JAX in float64.

Masked steps hold NaN, so nothing may read them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.layers import BiLSTM, bilstm

BATCH, TIME, FEATURES, HIDDEN = 2, 3, 2, 2


def arrays(dtype=np.float64):
    """The differentiable arguments, directions to move them in, the mask, and a dropout mask."""
    rng = np.random.default_rng(0)
    shapes = dict(
        x=(BATCH, TIME, FEATURES), kernel=(2, FEATURES, 4 * HIDDEN),
        recurrent_kernel=(2, HIDDEN, 4 * HIDDEN), bias=(2, 4 * HIDDEN),
        h=(2, BATCH, HIDDEN), c=(2, BATCH, HIDDEN),
    )  # fmt: skip
    a, v = ({k: rng.normal(size=s).astype(dtype) for k, s in shapes.items()} for _ in range(2))
    mask = rng.random((BATCH, TIME)) < 0.7
    mask[0] = False
    a["x"][~mask] = np.nan
    scale = 2.0 * rng.integers(0, 2, (2, BATCH, FEATURES)).astype(dtype)
    return a, v, mask, scale


def plain_scan(a, mask, scale):
    """The equations in the docstring of `lstm` under `lax.scan`. Returns outputs, h and c."""
    x, outputs, states = jnp.where(mask[:, :, None], a["x"], 0), [], []
    for d in range(2):

        def step(state, xs, d=d):
            (h, c), (x, real) = state, xs
            gates = x @ a["kernel"][d] + h @ a["recurrent_kernel"][d] + a["bias"][d]
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
            new_state = jnp.where(real, new_h, h), jnp.where(real, new_c, c)
            return new_state, jnp.where(real, new_h, 0)

        xs = (jnp.moveaxis(x * scale[d][:, None], 1, 0), jnp.asarray(mask).T[:, :, None])
        state, of_steps = jax.lax.scan(step, (a["h"][d], a["c"][d]), xs, reverse=d == 1)
        outputs.append(jnp.moveaxis(of_steps, 0, 1))
        states.append(state)
    h, c = (jnp.stack(s) for s in zip(*states, strict=True))
    return jnp.concatenate(outputs, axis=-1), h, c


def make_layer(implementation, mask, scale, **options):
    """A function of a dictionary of arrays, computed by an implementation or by `plain_scan`."""
    if implementation == "plain":
        return lambda a: plain_scan(a, mask, scale)

    def layer(a):
        outputs, (h, c) = bilstm(
            a["x"], a["kernel"], a["recurrent_kernel"], a["bias"], mask=jnp.asarray(mask),
            initial_state=(a["h"], a["c"]), input_scale=scale, implementation=implementation,
            **options,
        )  # fmt: skip
        return outputs, h, c

    return layer


def derivatives(layer, a, v):
    """Forward, reverse and second order, each composed in every way."""

    def loss(a):
        return sum(jnp.sum(jnp.sin(y)) for y in layer(a))

    def norm(tree):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(tree))

    gradient = jax.grad(loss)
    outputs, pull = jax.vjp(layer, a)
    return {
        "jvp": jax.jvp(layer, (a,), (v,)),
        "linearize": jax.linearize(layer, a)[1](v),
        "jacfwd": jax.jacfwd(lambda x: layer({**a, "x": x})[1])(a["x"]),
        "jacrev": jax.jacrev(lambda x: layer({**a, "x": x})[1])(a["x"]),
        "transpose of the gradient": jax.linear_transpose(pull, outputs)((v,)),
        "gradient": gradient(a),
        "forward over reverse": jax.jvp(gradient, (a,), (v,))[1],
        "reverse over forward": jax.grad(lambda a: jax.jvp(loss, (a,), (v,))[1])(a),
        "reverse over reverse": jax.grad(lambda a: norm(gradient(a)))(a),
        "second order of checkpoint": jax.jvp(jax.grad(jax.checkpoint(loss)), (a,), (v,))[1],
    }


def mapped(layer, a, v):
    """`vmap` over rows and over weights, alone and with derivatives inside and outside."""

    def loss(a):
        return sum(jnp.sum(jnp.sin(y)) for y in layer(a))

    def many(a):
        return jax.tree.map(lambda x: jnp.stack([x, x / 2]), a)

    weights = ("kernel", "recurrent_kernel", "bias")
    results = {}
    for name, axes in {
        "rows": {k: None if k in weights else 0 for k in a},
        "weights": {k: 0 if k in weights else None for k in a},
    }.items():
        stacked = {k: many(a[k]) if axes[k] == 0 else a[k] for k in a}
        moving = {k: many(v[k]) if axes[k] == 0 else v[k] for k in a}
        each = jax.vmap(loss, (axes,))

        def total(a, each=each):
            return jnp.sum(each(a))

        results |= {
            f"{name}": jax.vmap(layer, (axes,))(stacked),
            f"gradient inside, {name}": jax.vmap(jax.grad(loss), (axes,))(stacked),
            f"gradient outside, {name}": jax.grad(total)(stacked),
            f"forward over reverse, {name}": jax.jvp(jax.grad(total), (stacked,), (moving,)),
            f"twice, {name}": jax.vmap(each)(
                jax.tree.map(lambda x: jnp.stack([x, 2 * x]), stacked)
            ),
        }
    return results


def scanned(layer, a, v):
    """`lax.scan` over three layers with weights of their own, which `vmap` maps in turn."""

    def deep(x, weights):
        def body(x, weights):
            outputs, *_ = layer({**a, **weights, "x": x})
            return outputs[:, :, :FEATURES], jnp.sum(outputs)

        return jax.lax.scan(jax.checkpoint(body), x, weights)

    names = ("kernel", "recurrent_kernel", "bias")
    weights = {k: jnp.stack([a[k], v[k], a[k]]) for k in names}

    def loss(x, weights):
        return sum(jnp.sum(jnp.sin(y)) for y in deep(x, weights))

    gradient = jax.grad(loss, argnums=(0, 1))
    xs = jnp.stack([a["x"], v["x"]])
    return {
        "gradient": gradient(a["x"], weights),
        "vmap of the gradient": jax.vmap(gradient, (0, None))(xs, weights),
        "hvp": jax.jvp(lambda w: gradient(a["x"], w), (weights,), (weights,))[1],
    }


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("transformations", [derivatives, mapped, scanned])
def test_transformations_equal_those_of_plain_jax_in_float64(transformations):
    def results(implementation, dtype, **options):
        a, v, mask, scale = arrays(dtype)
        layer = make_layer(implementation, mask, scale, **options)
        found = jax.jit(lambda a, v: transformations(layer, a, v))(a, v)
        return jax.tree.map(np.asarray, found)

    with jax.enable_x64(True):
        expected = results("plain", np.float64)
    for implementation in ("scan", "native"):
        close(results(implementation, np.float32), expected, 2e-4)
    if transformations is scanned:
        close(results("native", np.float32, chunk_size=2), expected, 2e-4)
        with jax.enable_x64(True):
            close(results("auto", np.float64), expected, 1e-10)


def close(got, expected, tolerance):
    got = dict(jax.tree_util.tree_leaves_with_path(got))
    expected = dict(jax.tree_util.tree_leaves_with_path(expected))
    assert got.keys() == expected.keys()
    for path, want in expected.items():
        error = np.abs(got[path] - want).max() / max(1, np.abs(want).max())
        assert error < tolerance, f"{jax.tree_util.keystr(path)}: {error}"  # also where NaN


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["scan", "native"])
def test_nnx_vmap_over_layers_and_nnx_remat(implementation):
    """Two layers side by side equal one after the other; recomputation changes no gradient."""

    @nnx.vmap(in_axes=0)
    def make(rngs):
        return BiLSTM(FEATURES, HIDDEN, implementation=implementation, rngs=rngs)

    both = make(nnx.Rngs(0).split(2))
    x = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
    outputs = nnx.jit(nnx.vmap(lambda layer, x: layer(x)[0], in_axes=(0, None)))(both, x)
    graphdef, state = nnx.split(both)
    for i in range(2):
        one = nnx.merge(graphdef, jax.tree.map(lambda leaf, i=i: leaf[i], state))
        np.testing.assert_allclose(outputs[i], nnx.jit(lambda layer: layer(x)[0])(one), atol=1e-6)

    def loss(layer):
        return jnp.sum(layer(x)[0] ** 2)

    want = nnx.jit(nnx.grad(loss))(one)
    got = nnx.jit(nnx.grad(lambda layer: nnx.remat(loss)(layer)))(one)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


GPU = ["cudnn", "fused"] if jax.default_backend() == "gpu" else ["native"]


@pytest.mark.parametrize("implementation", ["scan", *GPU])
def test_one_forward_pass_serves_two_gradients(implementation):
    """As adversarial training asks: what the first gradient leaves behind must not change the second."""
    a, _, mask, _ = arrays(np.float32)
    weights = a["kernel"], a["recurrent_kernel"], a["bias"]
    cotangents = [np.full((BATCH, TIME, 2 * HIDDEN), x, np.float32) for x in (1, -0.5)]

    @jax.jit
    def both(x, *weights):
        options = dict(mask=mask, implementation=implementation)
        _, pull = jax.vjp(lambda *args: bilstm(*args, **options)[0], x, *weights)
        return [pull(cotangent) for cotangent in cotangents]

    with jax.default_matmul_precision("highest"):
        first, second = both(a["x"], *weights)
    for one, other in zip(
        first, second, strict=True
    ):  # a gradient is linear in what it is pulled from
        np.testing.assert_allclose(one * -0.5, other, atol=1e-6)
        assert np.abs(other).max() > 1e-3
