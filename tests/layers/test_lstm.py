"""The LSTM layers against a NumPy loop and finite differences, under any mask."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from plain_lstm import BATCH, FEATURES, HIDDEN, TIME, make, masks, numpy_lstm

from bahdanau_jax.layers import LSTM, BiLSTM, bilstm, lstm, lstm_implementation

KERNEL = "native" if jax.default_backend() == "cpu" else "fused"  # of a CPU or an NVIDIA GPU
both_implementations = pytest.mark.parametrize("implementation", ["scan", KERNEL])


@partial(jax.jit, static_argnames=("reverse", "dtype", "implementation"))
def run(a, mask, reverse=False, dtype=None, implementation="auto", input_scale=None):
    outputs, (h, c) = lstm(
        a["x"],
        a["kernel"],
        a["recurrent_kernel"],
        a["bias"],
        mask=mask,
        initial_state=(a["h0"], a["c0"]),
        input_scale=input_scale,
        reverse=reverse,
        dtype=dtype,
        implementation=implementation,
    )
    return outputs, h, c


@both_implementations
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("pattern", list(masks()))
def test_equals_a_plain_numpy_loop(pattern, reverse, implementation):
    a, mask = make(1), masks()[pattern]
    expected = numpy_lstm(a["x"], mask, *(a[k] for k in list(a)[1:]), reverse=reverse)
    for got, want in zip(
        run(a, jnp.array(mask), reverse, implementation=implementation), expected, strict=True
    ):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_without_mask_all_steps_are_real_and_without_state_it_starts_at_zeros():
    a = make(2)
    a["h0"] *= 0
    a["c0"] *= 0
    with_everything = run(a, jnp.ones((BATCH, TIME), bool))
    outputs, (h, c) = lstm(a["x"], a["kernel"], a["recurrent_kernel"], a["bias"])
    for got, want in zip((outputs, h, c), with_everything, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_equal_finite_differences_in_float64(reverse):
    with jax.enable_x64(True):
        a = make(3, batch=2, time=4, features=2, hidden=2, dtype=np.float64)
        mask = np.array([[True, False, True, True], [False, True, True, False]])
        rng = np.random.default_rng(0)
        weights = [rng.normal(size=s) for s in ((2, 4, 2), (2, 2), (2, 2))]

        @jax.jit
        def loss(a):
            return sum(jnp.sum(w * y) for w, y in zip(weights, run(a, mask, reverse), strict=True))

        gradients = jax.jit(jax.grad(loss))(a)
        for name, value in a.items():
            numeric = np.zeros_like(value)
            for index in np.ndindex(*value.shape):
                ends = []
                for delta in (1e-6, -1e-6):
                    moved = value.copy()
                    moved[index] += delta
                    ends.append(float(loss({**a, name: moved})))
                numeric[index] = (ends[0] - ends[1]) / 2e-6
            np.testing.assert_allclose(gradients[name], numeric, atol=1e-7, err_msg=name)


def plain_lstm(a, mask, reverse):
    """The equations of `numpy_lstm` for automatic differentiation: no scan and no hand-written gradient."""
    h, c = a["h0"], a["c0"]
    outputs = [None] * mask.shape[1]
    for t in reversed(range(mask.shape[1])) if reverse else range(mask.shape[1]):
        gates = a["x"][:, t] @ a["kernel"] + h @ a["recurrent_kernel"] + a["bias"]
        i, f, g, o = jnp.split(gates, 4, axis=1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h, real = jax.nn.sigmoid(o) * jnp.tanh(new_c), mask[:, t, None]
        outputs[t] = jnp.where(real, new_h, 0)
        h, c = jnp.where(real, new_h, h), jnp.where(real, new_c, c)
    return jnp.stack(outputs, axis=1), h, c


def gradients_of(function, a):
    def loss(a):
        return sum(jnp.sum(jnp.sin(y.astype(jnp.float32))) for y in function(a))

    return jax.jit(jax.grad(loss))(a)


@partial(jax.jit, static_argnames=("implementation", "reverse"))
def gradients_by(implementation, a, mask, reverse):
    """Compiled once for all masks."""
    if implementation == "plain":
        return gradients_of(lambda a: plain_lstm(a, mask, reverse), a)
    return gradients_of(lambda a: run(a, mask, reverse, implementation=implementation), a)


@pytest.mark.slow
@both_implementations
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("pattern", list(masks()))
def test_gradients_equal_those_of_automatic_differentiation(pattern, reverse, implementation):
    a, mask = make(13), jnp.array(masks()[pattern])
    want, got = (gradients_by(name, a, mask, reverse) for name in ("plain", implementation))
    for name in a:
        np.testing.assert_allclose(got[name], want[name], atol=2e-5, err_msg=name)


def test_bfloat16_gradients_are_near_the_exact_ones():
    a, mask = make(14), jnp.array(masks()["behind"])
    want = gradients_of(lambda a: plain_lstm(a, mask, False), a)
    got = gradients_of(lambda a: run(a, mask, dtype=jnp.bfloat16), a)
    for name in a:
        assert got[name].dtype == jnp.float32, name
        error = np.linalg.norm(got[name] - want[name]) / np.linalg.norm(want[name])
        assert error < 3e-2, name


@both_implementations
@pytest.mark.parametrize("reverse", [False, True])
def test_values_at_masked_steps_change_nothing(reverse, implementation):
    a, mask = make(4), jnp.array(masks()["anywhere"])

    @jax.jit
    @jax.value_and_grad
    def value_and_grad(a):
        outputs, h, c = run(a, mask, reverse, implementation=implementation)
        return jnp.sum(outputs**2) + jnp.sum(h * c)

    clean, clean_grads = value_and_grad(a)
    for filler in (1e30, np.inf, np.nan):
        dirty = {**a, "x": np.where(mask[:, :, None], a["x"], np.float32(filler))}
        value, grads = value_and_grad(dirty)
        assert value == clean
        for name in a:
            np.testing.assert_array_equal(grads[name], clean_grads[name], err_msg=name)
    assert np.all(np.asarray(clean_grads["x"])[~np.asarray(mask)] == 0)
    outputs, h, c = run(a, mask, reverse, implementation=implementation)
    assert np.all(np.asarray(outputs)[~np.asarray(mask)] == 0)
    np.testing.assert_array_equal(h[0], a["h0"][0])  # row 0 has no real step
    np.testing.assert_array_equal(c[0], a["c0"][0])


@pytest.mark.slow
@both_implementations
def test_extreme_values_stay_finite(implementation):
    a, mask = make(5), jnp.array(masks()["behind"])
    a["x"] *= 1e4
    grads = jax.grad(lambda a: jnp.sum(run(a, mask, implementation=implementation)[0]))(a)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [
        dict(batch=1, time=1, features=1, hidden=1),
        dict(batch=3, time=9, features=130, hidden=17),
        dict(batch=40, time=30, features=64, hidden=64),
        dict(batch=6, time=5, features=9, hidden=512),
    ],
    ids=str,
)
@pytest.mark.parametrize("reverse", [False, True])
def test_the_kernel_equals_the_scan_in_float64(sizes, reverse):
    a = make(12, **sizes)
    a["recurrent_kernel"] /= np.sqrt(sizes["hidden"])
    a["kernel"] /= np.sqrt(sizes["features"])
    rng = np.random.default_rng(0)
    mask = jnp.array(rng.random((sizes["batch"], sizes["time"])) < 0.7)
    scale = rng.integers(0, 2, (sizes["batch"], sizes["features"])) * 2.0
    shapes = [y.shape for y in run(a, mask)]
    weights = [rng.normal(size=shape) for shape in shapes]

    def results(a, weights, implementation):
        def loss(a):
            ys = run(a, mask, reverse, implementation=implementation, input_scale=jnp.array(scale))
            return sum(jnp.sum(w * y) for w, y in zip(weights, ys, strict=True)), ys

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(a)

    def typed(tree, dtype):
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)

    with jax.enable_x64(True):
        exact = results(typed(a, np.float64), typed(weights, np.float64), "scan")
        exact = jax.tree.map(np.asarray, exact)
    scale = scale.astype(np.float32)
    got = results(a, typed(weights, np.float32), KERNEL)
    for ours, want in zip(jax.tree.leaves(got), jax.tree.leaves(exact), strict=True):
        assert np.linalg.norm(ours - want) <= 1e-5 * (np.linalg.norm(want) + 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 7, 40, 150], ids="batch {}".format)
def test_how_the_kernel_splits_rows_and_directions_changes_nothing(batch):
    rng = np.random.default_rng(batch)
    shapes = dict(
        x=(batch, 6, 20), kernel=(2, 20, 72), recurrent_kernel=(2, 18, 72), bias=(2, 72),
        h=(2, batch, 18), c=(2, batch, 18), w=(batch, 6, 36),
    )  # fmt: skip
    a = {name: rng.normal(size=shape) / 2 for name, shape in shapes.items()}
    mask = jnp.array(rng.random((batch, 6)) < 0.7)
    scale = rng.integers(0, 2, (2, batch, 20)) * 2.0

    def gradients(dtype, implementation):
        def loss(a):
            outputs, state = bilstm(
                a["x"], a["kernel"], a["recurrent_kernel"], a["bias"], mask=mask,
                initial_state=(a["h"], a["c"]), input_scale=jnp.asarray(scale, dtype),
                implementation=implementation,
            )  # fmt: skip
            return jnp.sum(outputs * a["w"]) + jnp.sum(state[0] * state[1])

        arrays = {name: jnp.asarray(x, dtype) for name, x in a.items()}
        return jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(arrays))

    with jax.enable_x64(True):
        exact = gradients(np.float64, "scan")
    for name, got in gradients(np.float32, KERNEL).items():
        assert np.linalg.norm(got - exact[name]) <= 1e-5 * np.linalg.norm(exact[name]), name


@pytest.mark.slow
@both_implementations
@pytest.mark.parametrize("chunk_size", [1, 4, 9, 20])
def test_chunked_recomputation_changes_nothing(chunk_size, implementation):
    rng = np.random.default_rng(3)
    two = [make(seed) for seed in (14, 15)]
    weights = [jnp.stack([a[k] for a in two]) for k in ("kernel", "recurrent_kernel", "bias")]
    state = tuple(jnp.stack([a[k] for a in two]) for k in ("h0", "c0"))
    scale = jnp.array(rng.integers(0, 2, (2, BATCH, FEATURES)) * 2.0)
    mask = jnp.array(masks()["anywhere"])

    @partial(jax.jit, static_argnums=2)
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def results(x, weights, chunk_size):
        outputs, (h, c) = bilstm(
            x,
            *weights,
            mask=mask,
            initial_state=state,
            input_scale=scale,
            implementation=implementation,
            chunk_size=chunk_size,
        )
        return jnp.sum(outputs**2) + jnp.sum(h * c), (outputs, h, c)

    whole, chunked = (results(two[0]["x"], weights, size) for size in (0, chunk_size))
    for got, want in zip(jax.tree.leaves(chunked), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.slow
@both_implementations
def test_chunks_bound_the_memory_of_long_sequences(implementation):
    """XLA's temporary memory for the gradient of the notebook's BiLSTM, 10,000 steps at batch 16."""
    sizes = [(16, 10_000, 128), (2, 128, 256), (2, 64, 256), (2, 256)]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in sizes]

    def megabytes(chunk_size):
        def loss(*arguments):
            outputs, _ = bilstm(*arguments, implementation=implementation, chunk_size=chunk_size)
            return jnp.sum(outputs**2)

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3))).lower(*arguments).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes / 2**20

    whole, chunked = megabytes(0), megabytes(250)
    assert chunked < 500 and chunked < 0.7 * whole


def test_the_kernel_supports_vmap_and_checkpoint():
    a, mask = make(13), jnp.array(masks()["anywhere"])
    xs = jnp.stack([a["x"], 2 * a["x"]])

    def gradients(implementation):
        def loss(x):
            return jnp.sum(run({**a, "x": x}, mask, implementation=implementation)[0] ** 2)

        return jax.jit(jax.vmap(jax.grad(jax.checkpoint(loss))))(xs)

    np.testing.assert_allclose(gradients(KERNEL), gradients("scan"), atol=1e-5)


on_cpu = pytest.mark.skipif(KERNEL != "native", reason="about the choice on a CPU")


@on_cpu
def test_the_implementation_and_its_reason_are_reported():
    assert lstm_implementation("scan") == ("scan", "asked for")
    assert lstm_implementation()[0] == "native"
    name, why = lstm_implementation(dtype=jnp.float16)
    assert name == "scan" and "float16" in why
    with pytest.raises(ValueError, match="'native', which cannot run here: the dtype is float16"):
        lstm_implementation("native", dtype=jnp.float16)
    with pytest.raises(ValueError, match="implementation is 'fast'; expected one of"):
        lstm_implementation("fast")


@pytest.mark.slow
@on_cpu
def test_a_cpu_without_fma_takes_the_scan_and_says_why():
    """In a fresh process whose numba compiles for x86 before AVX2. The kernel still runs if asked for."""
    code = """
from bahdanau_jax.layers import lstm_implementation
from bahdanau_jax.layers.recurrence import kernel_obstacle
name, why = lstm_implementation()
assert name == "scan" and "no fused multiply-add" in why, (name, why)
assert kernel_obstacle("auto", "float32") == why
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@both_implementations
def test_numpy_float64_and_integers_compute_in_float32(implementation, recwarn):
    encoder = BiLSTM(FEATURES, HIDDEN, implementation=implementation, dropout=0.5, rngs=nnx.Rngs(0))
    encoder.eval()
    rng = np.random.default_rng(0)
    for x in (rng.normal(size=(2, 4, FEATURES)), rng.integers(-2, 3, (2, 4, FEATURES))):
        for got, want in zip(
            jax.tree.leaves(encoder(x)), jax.tree.leaves(encoder(np.float32(x))), strict=True
        ):
            assert got.dtype == jnp.float32
            np.testing.assert_array_equal(got, want)
    encoder.train()
    assert encoder(x)[0].dtype == jnp.float32
    assert lstm_implementation("native", dtype=np.float64) == ("native", "asked for")
    assert not recwarn.list


@both_implementations
def test_layers_pass_where_jax_refuses_to_promote_ranks(implementation):
    a, mask = make(7), jnp.array(masks()["behind"])
    want = gradients_of(lambda a: run(a, mask, implementation=implementation), a)
    with jax.numpy_rank_promotion("raise"):
        got = gradients_of(lambda a: run(a, mask, implementation=implementation), a)
    for name in a:
        np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.slow
@both_implementations
@pytest.mark.parametrize("chunk_size", [0, 2])
@pytest.mark.parametrize("sizes", [(0, 5), (3, 0), (0, 0)], ids=str)
def test_no_rows_or_no_steps_give_empty_outputs(sizes, chunk_size, implementation):
    encoder = BiLSTM(
        FEATURES, HIDDEN, implementation=implementation, chunk_size=chunk_size, rngs=nnx.Rngs(0)
    )

    def loss(x):
        outputs, (h, c) = encoder(x)
        return jnp.sum(outputs) + jnp.sum(h * c), (outputs, h)

    gradient, (outputs, h) = jax.jit(jax.grad(loss, has_aux=True))(jnp.ones((*sizes, FEATURES)))
    assert outputs.shape == (*sizes, 2 * HIDDEN) and gradient.shape == (*sizes, FEATURES)
    np.testing.assert_array_equal(h, np.zeros((sizes[0], 2 * HIDDEN)))


def test_bfloat16_keeps_a_float32_carry():
    a, mask = make(6), jnp.array(masks()["behind"])
    outputs, h, c = run(a, mask, dtype=jnp.bfloat16)
    assert outputs.dtype == jnp.bfloat16 and h.dtype == c.dtype == jnp.float32
    exact = numpy_lstm(a["x"], masks()["behind"], *(a[k] for k in list(a)[1:]))
    for got, want in zip((outputs, h, c), exact, strict=True):
        got = np.asarray(got, np.float64)
        assert np.linalg.norm(got - want) / np.linalg.norm(want) < 2e-2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            dict(x=np.zeros((2, 3))),
            r"inputs: expected \[batch, time, features\], got shape \(2, 3\)",
        ),
        (dict(kernel=np.zeros((5, 11))), r"kernel: expected shape \(5, 12\), got \(5, 11\)"),
        (dict(bias=np.zeros(3)), r"bias: expected shape \(12,\), got \(3,\)"),
        (dict(h0=np.zeros((4, 2))), r"initial_state h: expected shape \(4, 3\), got \(4, 2\)"),
    ],
)
def test_a_wrong_shape_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        run({**make(0), **changed}, None)


def test_a_mask_that_is_not_boolean_is_refused():
    with pytest.raises(ValueError, match="mask: expected bool"):
        run(make(0), jnp.ones((BATCH, TIME)))


def test_bilstm_is_two_lstms_from_both_ends():
    encoder = BiLSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    a, mask = make(7), masks()["anywhere"]
    h0, c0 = np.random.default_rng(1).normal(size=(2, BATCH, 2 * HIDDEN))
    outputs, (h, c) = encoder(a["x"], jnp.array(mask), (jnp.array(h0), jnp.array(c0)))
    for reverse, layer, half in [
        (False, encoder.forward, slice(None, HIDDEN)),
        (True, encoder.backward, slice(HIDDEN, None)),
    ]:
        weights = [np.asarray(w[...]) for w in (layer.kernel, layer.recurrent_kernel, layer.bias)]
        want = numpy_lstm(a["x"], mask, *weights, h0[:, half], c0[:, half], reverse=reverse)
        for got, expected in zip((outputs, h, c), want, strict=True):
            np.testing.assert_allclose(got[..., half], expected, atol=1e-5)


def test_dropout_is_one_mask_per_sequence_and_direction():
    x, mask = make(8)["x"], jnp.array(masks()["anywhere"])
    encoder = BiLSTM(FEATURES, HIDDEN, dropout=0.5, rngs=nnx.Rngs(0))
    drawn = [np.asarray(d.dropout_mask(x)) for d in (encoder.forward, encoder.backward)]
    assert drawn[0].shape == (BATCH, FEATURES) and set(np.unique(drawn)) == {0.0, 2.0}
    assert (drawn[0] != drawn[1]).any() and (drawn[0][0] != drawn[0][1]).any()

    encoder = BiLSTM(FEATURES, HIDDEN, dropout=0.5, rngs=nnx.Rngs(0))  # draws the same masks again
    outputs, _ = encoder(x, mask)
    for reverse, layer, scale, half in [
        (False, encoder.forward, drawn[0], slice(None, HIDDEN)),
        (True, encoder.backward, drawn[1], slice(HIDDEN, None)),
    ]:
        weights = [w[...] for w in (layer.kernel, layer.recurrent_kernel, layer.bias)]
        want, _ = lstm(x * scale[:, None], *weights, mask=mask, reverse=reverse)
        np.testing.assert_allclose(outputs[..., half], want, atol=1e-6)

    encoder.eval()
    np.testing.assert_array_equal(encoder(x, mask)[0], encoder(x, mask)[0])


def test_initial_weights_are_those_of_keras():
    layer = LSTM(64, 32, rngs=nnx.Rngs(0))
    bias = layer.bias[...].reshape(4, 32)
    np.testing.assert_array_equal(bias, [[0] * 32, [1] * 32, [0] * 32, [0] * 32])
    recurrent = np.asarray(layer.recurrent_kernel[...])
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(32), atol=1e-5)
    limit = np.sqrt(6 / (64 + 128))
    assert 0.95 * limit < np.abs(layer.kernel[...]).max() <= limit


@pytest.mark.slow
def test_without_dropout_a_layer_has_no_random_state():
    x = jnp.ones((1, 2, 4))
    for layer in (LSTM(4, 3, rngs=nnx.Rngs(0)), BiLSTM(4, 3, rngs=nnx.Rngs(0))):
        graph, state = nnx.split(layer)
        gradient = jax.grad(lambda state, g=graph: jnp.sum(nnx.merge(g, state)(x)[0]))(state)
        assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("implementation", ["auto", "scan"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "bool", "list"])
def test_inputs_of_any_dtype_are_near_those_of_float32(dtype, implementation):
    encoder = BiLSTM(FEATURES, HIDDEN, implementation=implementation, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).integers(0, 2, (2, 4, FEATURES))
    given = x.tolist() if dtype == "list" else x.astype(jnp.dtype(dtype))
    mask = [[True] * 4, [False] * 4]
    outputs, (h, c) = encoder(given, mask)
    assert outputs.dtype == (dtype if dtype in ("float16", "bfloat16") else "float32")
    assert h.dtype == c.dtype == jnp.float32
    want = encoder(np.float32(x), np.array(mask))[0]
    np.testing.assert_allclose(np.float32(outputs), want, atol=1e-2)


def test_complex_inputs_are_refused():
    with pytest.raises(ValueError, match="expected real numbers, got complex64"):
        BiLSTM(4, 3, rngs=nnx.Rngs(0))(np.ones((1, 2, 4), np.complex64))
