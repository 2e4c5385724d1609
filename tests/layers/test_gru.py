"""The GRU layers against a NumPy loop, finite differences, flax, Keras and PyTorch, under any mask."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.layers import GRU, BiGRU, gru

BATCH, TIME, FEATURES, HIDDEN = 4, 7, 5, 3
variants = pytest.mark.parametrize("reset_after", [True, False])


def numpy_gru(
    x, mask, kernel, recurrent_kernel, bias, h0, recurrent_bias, *, reset_after, reverse=False,
    resets=None, recurrent_scale=None,
):  # fmt: skip
    """The textbook equations in float64, row by row and step by step. Masked steps are left out."""

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    batch, time, _ = x.shape
    h = h0.astype(np.float64).copy()
    outputs = np.zeros((batch, time, h.shape[1]))
    u_r, u_z, u_n = np.split(recurrent_kernel.astype(np.float64), 3, axis=1)
    for b in range(batch):
        for t in reversed(range(time)) if reverse else range(time):
            if not mask[b, t]:
                continue
            if resets is not None and resets[b, t] and not reverse:
                h[b] = 0
            x_r, x_z, x_n = np.split(x[b, t] @ kernel + bias, 3)
            dropped = h[b] if recurrent_scale is None else h[b] * recurrent_scale[b]
            r, z = sigmoid(x_r + dropped @ u_r), sigmoid(x_z + dropped @ u_z)
            if reset_after:
                n = np.tanh(x_n + r * (dropped @ u_n + recurrent_bias))
            else:
                n = np.tanh(x_n + (r * dropped) @ u_n)
            h[b] = (1 - z) * n + z * h[b]
            outputs[b, t] = h[b]
            if resets is not None and resets[b, t] and reverse and mask[b, :t].any():
                h[b] = 0  # the next step, an earlier one, is of another sequence
    return outputs, h


def make(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = dict(
        x=(BATCH, TIME, FEATURES), kernel=(FEATURES, 3 * HIDDEN), recurrent_kernel=(HIDDEN, 3 * HIDDEN),
        bias=(3 * HIDDEN,), h0=(BATCH, HIDDEN), recurrent_bias=(HIDDEN,),
    )  # fmt: skip
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def masks():
    rng = np.random.default_rng(0)
    behind = np.arange(TIME) < rng.integers(1, TIME + 1, BATCH)[:, None]
    anywhere = rng.random((BATCH, TIME)) < 0.5
    anywhere[0] = False
    return {
        "all": np.ones((BATCH, TIME), bool),
        "behind": behind,
        "in front": behind[:, ::-1].copy(),
        "anywhere": anywhere,
        "nowhere": np.zeros((BATCH, TIME), bool),
    }


@partial(jax.jit, static_argnames=("reset_after", "reverse", "dtype"))
def run(a, mask, reset_after=True, reverse=False, dtype=None, **options):
    return gru(
        a["x"],
        a["kernel"],
        a["recurrent_kernel"],
        a["bias"],
        a["recurrent_bias"] if reset_after else None,
        mask=mask,
        initial_state=a["h0"],
        reset_after=reset_after,
        reverse=reverse,
        dtype=dtype,
        **options,
    )


@variants
@pytest.mark.parametrize("reverse", [False, True])
def test_equals_a_plain_numpy_loop(reset_after, reverse):
    a = make(1)
    for pattern, mask in masks().items():
        want = numpy_gru(mask=mask, **a, reset_after=reset_after, reverse=reverse)
        for got, expected in zip(run(a, mask, reset_after, reverse), want, strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=pattern)


@variants
@pytest.mark.parametrize("reverse", [False, True])
def test_resets_and_recurrent_dropout_equal_the_loop(reset_after, reverse):
    a, rng = make(2), np.random.default_rng(3)
    options = dict(
        resets=rng.random((BATCH, TIME)) < 0.4,
        recurrent_scale=2 * rng.integers(0, 2, (BATCH, HIDDEN)).astype(np.float32),
    )
    for mask in (masks()["all"], masks()["anywhere"]):
        want = numpy_gru(mask=mask, **a, reset_after=reset_after, reverse=reverse, **options)
        got = run(a, mask, reset_after, reverse, **options)
        np.testing.assert_allclose(got[0], want[0], atol=2e-5)
        np.testing.assert_allclose(got[1], want[1], atol=2e-5)


@pytest.mark.slow
def test_recurrent_dropout_draws_one_mask_for_all_steps():
    layer = GRU(FEATURES, HIDDEN, recurrent_dropout=0.5, rngs=nnx.Rngs(0))
    a = make(4)
    with pytest.raises(ValueError, match="recurrent_scale: expected the sequence's dropout mask"):
        layer.step(layer.initial_state(BATCH), a["x"][:, 0])
    copy = nnx.clone(layer)  # draws the same mask
    scale = copy.recurrent_dropout_mask(jnp.asarray(a["x"]))
    assert set(np.unique(scale)) <= {0, 2}
    outputs, h = layer(a["x"])
    carry = layer.initial_state(BATCH)
    for t in range(TIME):
        carry, output = layer.step(carry, a["x"][:, t], recurrent_scale=scale)
        np.testing.assert_allclose(output, outputs[:, t], atol=1e-6)
    layer.eval()
    assert np.abs(layer(a["x"])[1] - h).max() > 1e-3


@variants
def test_gradients_equal_finite_differences_in_float64(reset_after):
    with jax.enable_x64(True):
        a, mask = make(3, np.float64), masks()["anywhere"]
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(BATCH, TIME, HIDDEN)), rng.normal(size=(BATCH, HIDDEN))

        @jax.jit
        def loss(a):
            ys = run(a, mask, reset_after)
            return sum(jnp.sum(w * y) for w, y in zip(weights, ys, strict=True))

        gradients = jax.jit(jax.grad(loss))(a)
        for name, value in a.items():
            for _ in range(3):  # along random directions
                along = rng.normal(size=value.shape)
                ends = [float(loss({**a, name: value + d * along})) for d in (1e-6, -1e-6)]
                np.testing.assert_allclose(
                    np.vdot(gradients[name], along), (ends[0] - ends[1]) / 2e-6, atol=1e-7
                )


@variants
def test_values_at_masked_steps_change_nothing(reset_after):
    a, mask = make(4), masks()["anywhere"]

    @jax.jit
    @jax.value_and_grad
    def value_and_grad(a):
        outputs, h = run(a, mask, reset_after)
        return jnp.sum(outputs**2) + jnp.sum(h)

    clean, gradients = value_and_grad(a)
    for filler in (1e30, np.inf, np.nan):
        dirty = {**a, "x": np.where(mask[:, :, None], a["x"], np.float32(filler))}
        value, found = value_and_grad(dirty)
        assert value == clean
        jax.tree.map(np.testing.assert_array_equal, found, gradients)
    assert np.all(np.asarray(gradients["x"])[~mask] == 0)
    outputs, h = run(a, mask, reset_after)
    assert np.all(np.asarray(outputs)[~mask] == 0)
    np.testing.assert_array_equal(h[0], a["h0"][0])  # row 0 has no real step


@pytest.mark.slow
@variants
def test_every_transformation_applies(reset_after):
    """Forward mode and second derivatives agree with reverse mode; vmap with a loop."""
    a, mask = make(5), masks()["behind"]
    tangents = make(6)

    @jax.jit
    def loss(a):
        return jnp.sum(jnp.sin(run(a, mask, reset_after)[0]))

    gradient = jax.jit(jax.grad(jax.checkpoint(loss)))(a)
    _, forward = jax.jvp(loss, (a,), (tangents,))
    want = sum(jnp.vdot(gradient[name], tangents[name]) for name in a)
    np.testing.assert_allclose(forward, want, rtol=1e-4)
    # The second derivative along the tangents, by reverse over forward and forward over reverse.
    over_forward = jax.jit(jax.grad(lambda a: jax.jvp(loss, (a,), (tangents,))[1]))(a)
    _, over_reverse = jax.jvp(jax.jit(jax.grad(loss)), (a,), (tangents,))
    for name in a:
        np.testing.assert_allclose(over_forward[name], over_reverse[name], rtol=1e-3, atol=1e-3)
    two = {name: jnp.stack([a[name], tangents[name]]) for name in a}
    mapped = jax.vmap(loss)(two)
    np.testing.assert_allclose(mapped, [loss(a), loss(tangents)], rtol=1e-5)


def test_without_mask_and_state_all_steps_are_real_from_zeros():
    a = make(2)
    a["h0"] *= 0
    want = run(a, masks()["all"])
    got = gru(a["x"], a["kernel"], a["recurrent_kernel"], a["bias"], a["recurrent_bias"])
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_lengths_are_a_mask():
    layer, a, mask = peer_case(True)
    for got, want in zip(layer(a["x"], lengths=mask.sum(1)), layer(a["x"], mask), strict=True):
        np.testing.assert_array_equal(got, want)


def test_bfloat16_keeps_a_float32_carry():
    a, mask = make(6), masks()["behind"]
    outputs, h = run(a, mask, dtype=jnp.bfloat16)
    assert outputs.dtype == jnp.bfloat16 and h.dtype == jnp.float32
    for got, want in zip((outputs, h), numpy_gru(mask=mask, **a, reset_after=True), strict=True):
        assert np.linalg.norm(np.float64(got) - want) / np.linalg.norm(want) < 2e-2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(x=np.zeros((2, 3))), r"inputs: expected \[batch, time, features\], got shape"),
        (dict(kernel=np.zeros((5, 8))), r"kernel: expected shape \(5, 9\), got \(5, 8\)"),
        (dict(bias=np.zeros(3)), r"bias: expected shape \(9,\), got \(3,\)"),
        (dict(recurrent_bias=np.zeros(9)), r"recurrent_bias: expected shape \(3,\), got \(9,\)"),
        (dict(h0=np.zeros((4, 2))), r"initial_state: expected shape \(4, 3\), got \(4, 2\)"),
    ],
)
def test_a_wrong_shape_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        run({**make(0), **changed}, None)


def test_what_does_not_go_together_is_refused():
    a = make(0)
    weights = a["x"], a["kernel"], a["recurrent_kernel"], a["bias"]
    with pytest.raises(ValueError, match="mask: expected bool"):
        gru(*weights, mask=np.ones((BATCH, TIME)))
    with pytest.raises(
        ValueError, match=r"mask: expected bool \(4, 7\), True = real, got bool \(4, 6\)"
    ):
        gru(*weights, mask=np.ones((BATCH, TIME - 1), bool))
    with pytest.raises(
        ValueError, match="recurrent_bias: expected None where reset_after is False"
    ):
        gru(*weights, a["recurrent_bias"], reset_after=False)


@variants
def test_bigru_is_two_grus_from_both_ends(reset_after):
    encoder = BiGRU(FEATURES, HIDDEN, reset_after=reset_after, rngs=nnx.Rngs(0))
    a, mask = make(7), masks()["anywhere"]
    h0 = np.random.default_rng(1).normal(size=(BATCH, 2 * HIDDEN)).astype(np.float32)
    outputs, h = encoder(a["x"], mask, h0)
    for reverse, layer, half in [
        (False, encoder.forward, slice(None, HIDDEN)),
        (True, encoder.backward, slice(HIDDEN, None)),
    ]:
        weights = [np.asarray(w[...]) for w in (layer.kernel, layer.recurrent_kernel, layer.bias)]
        want = numpy_gru(
            a["x"], mask, *weights, h0[:, half], np.zeros(HIDDEN), reset_after=reset_after, reverse=reverse
        )  # fmt: skip
        for got, expected in zip((outputs, h), want, strict=True):
            np.testing.assert_allclose(got[..., half], expected, atol=1e-5)


@variants
def test_steps_equal_the_scan(reset_after):
    layer, a, mask = peer_case(reset_after)
    outputs, last = layer(a["x"], mask)
    h, found = jax.lax.scan(
        lambda h, xs: layer.step(h, *xs),
        layer.initial_state(BATCH),
        (a["x"].swapaxes(0, 1), mask.T),
    )
    np.testing.assert_allclose(found.swapaxes(0, 1), outputs, atol=1e-6)
    np.testing.assert_allclose(h, last, atol=1e-6)
    with pytest.raises(ValueError, match=r"inputs: expected \[batch, features\], got shape"):
        layer.step(h, a["x"])
    with pytest.raises(ValueError, match="input_scale: expected the sequence's dropout mask"):
        GRU(FEATURES, HIDDEN, dropout=0.5, rngs=nnx.Rngs(0)).step(h, a["x"][:, 0])


def test_dropout_is_one_mask_per_sequence():
    a, layer = make(8), GRU(FEATURES, HIDDEN, dropout=0.5, rngs=nnx.Rngs(0))
    again = GRU(FEATURES, HIDDEN, dropout=0.5, rngs=nnx.Rngs(0))
    scale = again.dropout(jnp.ones((BATCH, FEATURES)))
    assert set(np.unique(scale)) == {0.0, 2.0}
    weights = [w[...] for w in (layer.kernel, layer.recurrent_kernel, layer.bias)]
    np.testing.assert_allclose(
        layer(a["x"])[0], gru(a["x"] * scale[:, None], *weights)[0], atol=1e-6
    )
    layer.eval()
    np.testing.assert_array_equal(layer(a["x"])[0], layer(a["x"])[0])


# --- other libraries with the same weights --------------------------------------------------------------


def peer_case(reset_after) -> Any:
    layer: Any = GRU(FEATURES, HIDDEN, reset_after=reset_after, rngs=nnx.Rngs(0))
    a = make(9)
    layer.bias[...] = jnp.asarray(a["bias"])
    if reset_after:
        layer.recurrent_bias[...] = jnp.asarray(a["recurrent_bias"])
    return layer, a, masks()["behind"]


def test_equals_flax():
    layer, a, mask = peer_case(True)
    layer.recurrent_bias[...] *= 0  # flax has none
    cell: Any = nnx.GRUCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    cell.dense_i.kernel[...], cell.dense_h.kernel[...] = (
        layer.kernel[...],
        layer.recurrent_kernel[...],
    )
    cell.dense_i.bias[...] = layer.bias[...]
    h, want = nnx.RNN(cell, return_carry=True, rngs=nnx.Rngs(0))(
        jnp.asarray(a["x"]), seq_lengths=mask.sum(1)
    )
    outputs, last = layer(a["x"], mask)
    np.testing.assert_allclose(outputs, np.where(mask[:, :, None], want, 0), atol=1e-5)
    np.testing.assert_allclose(last, h, atol=1e-5)


@pytest.mark.slow
@variants
def test_equals_keras(reset_after):
    keras = pytest.importorskip("keras")
    layer, a, mask = peer_case(reset_after)

    def zrn(x):  # Keras's order
        r, z, n = np.split(np.asarray(x), 3, axis=-1)
        return np.concatenate([z, r, n], axis=-1)

    theirs = keras.layers.GRU(
        HIDDEN, reset_after=reset_after, return_sequences=True, return_state=True, zero_output_for_mask=True
    )  # fmt: skip
    theirs.build(a["x"].shape)
    bias = zrn(layer.bias[...])
    if reset_after:
        bias = np.stack([bias, np.concatenate([np.zeros(2 * HIDDEN), a["recurrent_bias"]])])
    theirs.set_weights([zrn(layer.kernel[...]), zrn(layer.recurrent_kernel[...]), bias])
    for got, want in zip(layer(a["x"], mask), theirs(a["x"], mask=mask), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow
def test_equals_pytorch_and_its_gradients():
    torch = pytest.importorskip("torch")
    layer, a, mask = peer_case(True)
    theirs = torch.nn.GRU(FEATURES, HIDDEN, batch_first=True)
    with torch.no_grad():
        for name, x in {
            "weight_ih_l0": layer.kernel[...].T,
            "weight_hh_l0": layer.recurrent_kernel[...].T,
            "bias_ih_l0": layer.bias[...],
            "bias_hh_l0": np.concatenate([np.zeros(2 * HIDDEN), a["recurrent_bias"]]),
        }.items():
            getattr(theirs, name).copy_(torch.tensor(np.array(x, np.float32)))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(a["x"]), mask.sum(1), batch_first=True, enforce_sorted=False
    )
    found, h = theirs(packed)
    want, _ = torch.nn.utils.rnn.pad_packed_sequence(found, batch_first=True, total_length=TIME)
    (torch.sin(want).sum() + h.sum()).backward()

    def loss(layer):
        outputs, last = layer(a["x"], mask)
        return jnp.sum(jnp.sin(outputs)) + jnp.sum(last), outputs

    gradients, outputs = nnx.grad(loss, has_aux=True)(layer)
    np.testing.assert_allclose(outputs, want.detach(), atol=1e-5)
    for ours, name in [
        ("kernel", "weight_ih_l0"),
        ("recurrent_kernel", "weight_hh_l0"),
        ("bias", "bias_ih_l0"),
    ]:
        np.testing.assert_allclose(
            gradients[ours][...], getattr(theirs, name).grad.numpy().T, atol=1e-4, err_msg=ours
        )
    np.testing.assert_allclose(
        gradients["recurrent_bias"][...], theirs.bias_hh_l0.grad[2 * HIDDEN :], atol=1e-4
    )


def test_on_an_explicit_mesh_and_in_shard_map():
    a, mask = make(10), masks()["anywhere"]
    want = run(a, mask)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows, whole = jax.P("data"), jax.P()
    a = {**a, "recurrent_bias": jnp.asarray(a["recurrent_bias"])}
    with jax.set_mesh(mesh):
        sharded = {**a, "x": jax.device_put(a["x"], rows), "h0": jax.device_put(a["h0"], rows)}
        got = jax.tree.map(np.asarray, run(sharded, mask))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), got, tuple(want))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {name: rows if name in ("x", "h0") else whole for name in a}
    split = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(specs, rows), out_specs=rows))
    got = jax.tree.map(np.asarray, split(a, mask))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), got, tuple(want))
