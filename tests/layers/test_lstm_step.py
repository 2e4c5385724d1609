"""A single step of the LSTM against the whole layer and PyTorch's LSTMCell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from plain_lstm import make, masks

from bahdanau_jax.layers import LSTM, lstm, lstm_step

SIZES = dict(batch=3, time=4, features=2, hidden=2)
NAMES = ("kernel", "recurrent_kernel", "bias")


def close(got, want, atol=1e-6):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(np.float32(x), np.float32(y), atol=atol)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.slow
def test_steps_equal_the_whole_layer(dtype):
    a, mask = make(0, **SIZES), masks(0, 3, 4)["anywhere"]
    rng = np.random.default_rng(0)
    scales = {name: rng.integers(0, 2, (3, 2)) * 2.0 for name in ("input_scale", "recurrent_scale")}
    a["x"][~mask] = np.nan

    def whole(a):
        weights = [a[k] for k in NAMES]
        return lstm(
            a["x"], *weights, mask=mask, initial_state=(a["h0"], a["c0"]), dtype=dtype, **scales
        )

    def stepped(a):
        def step(carry, xs):
            x, real = xs
            return lstm_step(carry, x, *(a[k] for k in NAMES), mask=real, dtype=dtype, **scales)

        xs = jnp.asarray(a["x"]).swapaxes(0, 1), jnp.asarray(mask.T)
        carry, outputs = jax.lax.scan(step, (a["h0"], a["c0"]), xs)
        return outputs.swapaxes(0, 1), carry

    def results(function):
        def loss(a):
            ys = function(a)
            return sum(jnp.sum(jnp.sin(y.astype(jnp.float32))) for y in jax.tree.leaves(ys)), ys

        return jax.jit(jax.grad(loss, has_aux=True))(a)

    close(results(stepped), results(whole), atol=1e-6 if dtype == jnp.float32 else 3e-2)


@pytest.mark.slow
def test_equals_the_cell_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    a = make(1, **SIZES)
    cell = torch.nn.LSTMCell(2, 2)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor(a["kernel"].T))
        cell.weight_hh.copy_(torch.tensor(a["recurrent_kernel"].T))
        cell.bias_ih.copy_(torch.tensor(a["bias"]))
        cell.bias_hh.zero_()
    x, h, c = (torch.tensor(a[k], requires_grad=True) for k in ("x", "h0", "c0"))
    state = cell(x[:, 0], (h, c))
    torch.stack(state).sin().sum().backward()

    @jax.jit
    def loss(a):
        carry, output = lstm_step((a["h0"], a["c0"]), a["x"][:, 0], *(a[k] for k in NAMES))
        return sum(jnp.sum(jnp.sin(s)) for s in carry), (carry, output)

    gradients, (carry, output) = jax.grad(loss, has_aux=True)(a)
    for got, want in zip((*carry, output), (*state, state[0]), strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-6)
    for name, want in {
        "x": x, "h0": h, "c0": c, "kernel": cell.weight_ih.T, "recurrent_kernel": cell.weight_hh.T,
    }.items():  # fmt: skip
        source = {"kernel": cell.weight_ih, "recurrent_kernel": cell.weight_hh}.get(name, want)
        assert source.grad is not None
        grad = source.grad.numpy()
        np.testing.assert_allclose(
            gradients[name], grad.T if source is not want else grad, atol=1e-6
        )


def test_a_loop_outside_jit_equals_the_layer():
    layer, x = LSTM(2, 2, rngs=nnx.Rngs(0)), make(2, **SIZES)["x"]
    carry, mask = layer.initial_state(3), masks(0, 3, 4)["anywhere"]
    outputs = []
    for t in range(4):
        carry, output = layer.step(carry, x[:, t], mask[:, t])
        outputs.append(output)
    close((jnp.stack(outputs, 1), carry), layer(x, mask))


def test_dropout_is_drawn_once_and_given_to_each_step():
    options = dict(dropout=0.5, recurrent_dropout=0.5)
    x = make(3, **SIZES)["x"]
    layer = LSTM(2, 2, **options, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="input_scale: expected the sequence's dropout mask, got"):
        layer.step(layer.initial_state(3), x[:, 0])
    scales = dict(input_scale=layer.dropout_mask(x[:, 0]))
    with pytest.raises(ValueError, match="recurrent_scale: expected the sequence's dropout mask"):
        layer.step(layer.initial_state(3), x[:, 0], **scales)
    scales |= dict(recurrent_scale=layer.recurrent_dropout_mask(x[:, 0]))
    carry = layer.initial_state(3)
    for t in range(4):
        carry, _ = layer.step(carry, x[:, t], **scales)
    same = LSTM(2, 2, **options, rngs=nnx.Rngs(0))  # draws the same masks again
    close(carry, same(x)[1])
    layer.eval()
    layer.step(carry, x[:, 0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(x=np.zeros((3, 4, 2))), r"inputs: expected \[batch, features\], got shape \(3, 4, 2\)"),
        (dict(c0=np.zeros((2, 2))), r"carry c: expected shape \(3, 2\), got \(2, 2\)"),
        (dict(kernel=np.zeros((2, 7))), r"kernel: expected shape \(2, 8\), got \(2, 7\)"),
        (dict(mask=np.ones(3)), r"mask: expected bool \(3,\), True = real, got float"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_named(changed, message):
    a = make(0, **SIZES)
    a = a | dict(x=a["x"][:, 0]) | changed
    with pytest.raises(ValueError, match=message):
        lstm_step((a["h0"], a["c0"]), a["x"], *(a[k] for k in NAMES), mask=a.get("mask"))
