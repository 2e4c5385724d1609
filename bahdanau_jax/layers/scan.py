"""One LSTM layer as `jax.lax.scan`, with a hand-written gradient. The reference implementation.

The scans do only sequential work. One product projects the inputs of all steps before the forward scan,
and one product per weight forms its gradient after the backward scan. Automatic differentiation would add
up these gradients step by step.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

State = tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]


def scan_layer(
    inputs: Float[Array, "batch time features"],
    kernel: Float[Array, "features 4*hidden"],
    recurrent_kernel: Float[Array, "hidden 4*hidden"],
    bias: Float[Array, "4*hidden"],
    mask: Bool[Array, "batch time"] | None,
    state: State,
    *,
    reverse: bool,
    dtype,
) -> tuple[Float[Array, "batch time hidden"], State]:
    """Runs one direction; see `bahdanau_jax.layers.lstm.lstm`.

    The products compute in `dtype`, everything else in the dtype of `state`.
    """
    # [time, batch, 4*hidden]: lax.scan walks the leading axis.
    projected = (
        jnp.matmul(
            jnp.swapaxes(inputs, 0, 1).astype(dtype),
            kernel.astype(dtype),
            preferred_element_type=state[0].dtype,
        )
        + bias.astype(state[0].dtype)[None, None]
    )
    real = None if mask is None else mask.T[:, :, None]  # [time, batch, 1]
    outputs, state = _recur(  # pyright: ignore[reportGeneralTypeIssues]
        projected, recurrent_kernel.astype(dtype), real, state, reverse
    )
    return jnp.swapaxes(outputs, 0, 1).astype(dtype), state


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _recur(projected, recurrent_kernel, real, state: State, reverse: bool):
    """Runs the recurrence over `projected` [time, batch, 4*hidden]; outputs [time, batch, hidden]."""

    def step(state: State, xs):
        state, output, _ = _step(state, recurrent_kernel, *xs)
        return state, output

    state, outputs = jax.lax.scan(step, state, (projected, real), reverse=reverse)
    return outputs, state


def _step(state: State, recurrent_kernel, projected, real):
    """Computes one step of all rows: the new state, the output, and the gates' activations."""
    h, c = state  # [batch, hidden]
    gates = projected + _product(h, recurrent_kernel)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    new_c = f * c + i * g
    new_h = o * jnp.tanh(new_c)
    if real is None:
        return (new_h, new_c), new_h, (i, f, g, o)
    new_state = jnp.where(real, new_h, h), jnp.where(real, new_c, c)
    return new_state, jnp.where(real, new_h, 0), (i, f, g, o)


def _product(a, b):
    """a @ b, multiplied in b's dtype and summed in a's."""
    return jnp.matmul(a.astype(b.dtype), b, preferred_element_type=a.dtype)


def _recur_forward(projected, recurrent_kernel, real, state: State, reverse: bool):
    def step(state: State, xs):
        new_state, output, gates = _step(state, recurrent_kernel, *xs)
        return new_state, (output, *state, gates)

    final, (outputs, *saved) = jax.lax.scan(step, state, (projected, real), reverse=reverse)
    return (outputs, final), (recurrent_kernel, real, *saved)


def _recur_backward(reverse: bool, saved, gradients):
    recurrent_kernel, real, h, c, gates = saved  # h and c before each step
    d_outputs, d_state = gradients

    def step(d_state: State, xs):
        d_h, d_c = d_state
        d_output, real, c, (i, f, g, o) = xs
        tanh_c = jnp.tanh(f * c + i * g)
        d_new_h = d_h + d_output
        d_new_c = d_c + d_new_h * o * (1 - tanh_c * tanh_c)
        d_i, d_f = d_new_c * g * i * (1 - i), d_new_c * c * f * (1 - f)
        d_g, d_o = d_new_c * i * (1 - g * g), d_new_h * tanh_c * o * (1 - o)
        d_gates = jnp.concatenate([d_i, d_f, d_g, d_o], axis=-1)
        if real is not None:
            d_gates = jnp.where(real, d_gates, 0)
        d_before_h, d_before_c = _product(d_gates, recurrent_kernel.T), d_new_c * f
        if real is not None:  # a masked step passes the state on unchanged
            d_before_h = jnp.where(real, d_before_h, d_h)
            d_before_c = jnp.where(real, d_before_c, d_c)
        return (d_before_h, d_before_c), d_gates

    xs = (d_outputs, real, c, gates)
    d_state, d_projected = jax.lax.scan(step, d_state, xs, reverse=not reverse)
    dtype, hidden = recurrent_kernel.dtype, h.shape[-1]
    d_recurrent_kernel = jnp.matmul(  # over all rows and steps at once
        h.reshape(-1, hidden).T.astype(dtype),
        d_projected.reshape(-1, 4 * hidden).astype(dtype),
        preferred_element_type=h.dtype,
    ).astype(dtype)
    d_real = None if real is None else np.zeros(real.shape, jax.dtypes.float0)
    return d_projected, d_recurrent_kernel, d_real, d_state


_recur.defvjp(_recur_forward, _recur_backward)
