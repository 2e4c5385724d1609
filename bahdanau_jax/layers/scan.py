"""An LSTM layer as `jax.lax.scan`: plain JAX that runs on any device. The reference implementation.

The scans do only sequential work. One product projects the inputs of all steps before the forward scan,
and one product per weight forms its gradient after the backward scan. Automatic differentiation of
`run` would add up these gradients step by step; it serves the other derivatives (primitives.py).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bahdanau_jax.layers.layer import Arguments, Layer

Results = tuple[Array, Array, Array]  # outputs [batch, time, directions*hidden], h and c


def run(layer: Layer, arguments: Arguments) -> Results:
    """Runs the layer. Every JAX transformation applies to it."""
    return _scan(layer, arguments, save=False)[0]


def run_saving(layer: Layer, arguments: Arguments) -> tuple[Results, list[Array]]:
    """Runs the layer and returns what `gradients` needs of each step.

    For each direction, these are six arrays [time, batch, hidden] in the carry's dtype: the state h and c
    before the step, and the gates i, f, g and o.
    """
    return _scan(layer, arguments, save=True)


def _scan(layer: Layer, arguments: Arguments, *, save: bool) -> tuple[Results, list[Array]]:
    mask = arguments.mask
    real = None if mask is None else mask.T[:, :, None]  # [time, batch, 1]
    outputs, states, records = [], [], []
    for d, recurrent_kernel in enumerate(arguments.recurrent_kernel):
        projected = _project(
            arguments.inputs,
            arguments.kernel[d],
            arguments.bias[d],
            arguments=arguments,
            direction=d,
        )

        scale, reset = _scale_and_resets(arguments, d)

        def step(state, xs, recurrent_kernel=recurrent_kernel, scale=scale):
            projected, real, reset = xs
            if reset is not None:
                state = tuple(jnp.where(reset, 0, x) for x in state)
            new_state, output, gates = step_of(state, recurrent_kernel, projected, real, scale)
            return new_state, (output, (*state, *gates) if save else ())

        state, (output, saved) = jax.lax.scan(
            step,
            (arguments.h[d], arguments.c[d]),
            (projected, real, reset),
            reverse=layer.backwards(d),
        )
        outputs.append(jnp.swapaxes(output, 0, 1).astype(layer.dtype))
        states.append(state)
        records.extend(saved)
    h, c = (jnp.stack(x) for x in zip(*states, strict=True))
    return (jnp.concatenate(outputs, axis=-1), h, c), records


def _project(inputs, kernel, bias, *, arguments: Arguments, direction: int):
    """Projects the inputs of all steps: [time, batch, 4*hidden], since lax.scan walks the leading axis."""
    if arguments.mask is not None:
        # Otherwise a NaN or infinity at a masked step gets into the weights' gradient: 0 * inf is NaN.
        inputs = jnp.where(arguments.mask[:, :, None], inputs, 0)
    if arguments.input_scale is not None:
        inputs = inputs * arguments.input_scale[direction][:, None, :]
    inputs = jnp.swapaxes(inputs, 0, 1)
    return jnp.matmul(inputs, kernel, preferred_element_type=bias.dtype) + bias[None, None]


def _scale_and_resets(arguments: Arguments, direction: int):
    """The recurrent scale [batch, hidden] and the resets [time, batch, 1] of one direction, each or None."""
    scale, resets = arguments.recurrent_scale, arguments.resets
    return (
        None if scale is None else scale[direction],
        None if resets is None else resets[direction].T[:, :, None],
    )


def step_of(state, recurrent_kernel, projected, real, scale):
    """Computes one step of all rows: the new state, the output, and the gates' activations."""
    h, c = state  # [batch, hidden]
    gates = projected + _product(h if scale is None else h * scale, recurrent_kernel)
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


def gradients(
    layer: Layer, arguments: Arguments, records: Sequence[Array], of_results: Results
) -> tuple[Array, ...]:
    """Returns the gradients of inputs, kernel, recurrent_kernel, bias, h and c.

    Args:
      layer, arguments: those of `run_saving`.
      records: what it saved.
      of_results: the gradients of its results.
    """
    mask, hidden = arguments.mask, arguments.h.shape[-1]
    real = None if mask is None else mask.T[:, :, None]
    d_inputs, of_directions = jnp.zeros_like(arguments.inputs), []
    for d, recurrent_kernel in enumerate(arguments.recurrent_kernel):
        h, *saved = records[6 * d : 6 * d + 6]
        scale, reset = _scale_and_resets(arguments, d)
        if scale is not None:
            h = h * scale[None]
        d_outputs = of_results[0][:, :, d * hidden : (d + 1) * hidden].astype(layer.carry_dtype)

        def step(d_state, xs, recurrent_kernel=recurrent_kernel, scale=scale):
            *xs, reset = xs
            d_state, d_gates = _step_backward(d_state, recurrent_kernel, scale, *xs)
            if reset is not None:
                d_state = tuple(jnp.where(reset, 0, x) for x in d_state)
            return d_state, d_gates

        d_state, d_projected = jax.lax.scan(
            step,
            (of_results[1][d], of_results[2][d]),
            (jnp.swapaxes(d_outputs, 0, 1), real, *saved, reset),
            reverse=not layer.backwards(d),
        )
        d_recurrent_kernel = jnp.matmul(  # over all rows and steps at once
            h.reshape(-1, hidden).T.astype(layer.dtype),
            d_projected.reshape(-1, 4 * hidden).astype(layer.dtype),
            preferred_element_type=layer.carry_dtype,
        ).astype(layer.dtype)
        project = partial(_project, arguments=arguments, direction=d)
        _, pull = jax.vjp(project, arguments.inputs, arguments.kernel[d], arguments.bias[d])
        of_inputs, d_kernel, d_bias = pull(d_projected)
        d_inputs += of_inputs
        of_directions.append((d_kernel, d_recurrent_kernel, d_bias, *d_state))
    return d_inputs, *(jnp.stack(x) for x in zip(*of_directions, strict=True))


def _step_backward(d_state, recurrent_kernel, scale, d_output, real, c, i, f, g, o):
    """Computes the gradients of one step: of the state before it and of the projected inputs."""
    d_h, d_c = d_state
    tanh_c = jnp.tanh(f * c + i * g)
    d_new_h = d_h + d_output
    d_new_c = d_c + d_new_h * o * (1 - tanh_c * tanh_c)
    d_i, d_f = d_new_c * g * i * (1 - i), d_new_c * c * f * (1 - f)
    d_g, d_o = d_new_c * i * (1 - g * g), d_new_h * tanh_c * o * (1 - o)
    d_gates = jnp.concatenate([d_i, d_f, d_g, d_o], axis=-1)
    if real is not None:
        d_gates = jnp.where(real, d_gates, 0)
    d_before_h, d_before_c = _product(d_gates, recurrent_kernel.T), d_new_c * f
    if scale is not None:
        d_before_h *= scale
    if real is not None:  # a masked step passes the state on unchanged
        d_before_h = jnp.where(real, d_before_h, d_h)
        d_before_c = jnp.where(real, d_before_c, d_c)
    return (d_before_h, d_before_c), d_gates
