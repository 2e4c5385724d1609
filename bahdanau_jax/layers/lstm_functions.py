"""LSTM layers as pure functions: `lstm()`, `bilstm()` and `lstm_step()`.

Any boolean mask is exact. A masked step is skipped as if it did not exist, so padding before, after or
between real steps changes no result and no gradient.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers.dtypes import floating
from bahdanau_jax.layers.masks import check_mask, mask_of
from bahdanau_jax.layers.recurrence import run_layer
from bahdanau_jax.layers.scan import step_of

State = tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]


def lstm(
    inputs: Float[Array, "batch time features"],
    kernel: Float[Array, "features 4*hidden"],
    recurrent_kernel: Float[Array, "hidden 4*hidden"],
    bias: Float[Array, "4*hidden"],
    *,
    mask: Bool[Array, "batch time"] | None = None,
    lengths: Int[Array, "batch"] | None = None,
    resets: Bool[Array, "batch time"] | None = None,
    initial_state: State | None = None,
    input_scale: Float[Array, "batch features"] | None = None,
    recurrent_scale: Float[Array, "batch hidden"] | None = None,
    reverse: bool = False,
    dtype: DTypeLike | None = None,
    implementation: str = "auto",
    chunk_size: int = 0,
) -> tuple[Float[Array, "batch time hidden"], State]:
    """Runs one LSTM layer over time (Hochreiter and Schmidhuber 1997; forget gate of Gers et al. 2000).

    At each real step, with the gates in Keras's and PyTorch's order i, f, g, o::

        i, f, g, o = split(x @ kernel + h @ recurrent_kernel + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)

    Args:
      inputs: the sequences. Values at masked steps are ignored, even NaN.
      kernel: input weights, the four gates side by side.
      recurrent_kernel: hidden-to-hidden weights, in the same order.
      bias: one bias per gate and unit.
      mask: True where a step is real, in any pattern. None: all steps are real.
      lengths: instead of `mask`, the number of real steps of each row, which come first.
      resets: True at real steps where a new sequence starts, such as the next document or episode. Each
        sequence runs as if it were alone, from a state of zeros; the first that the layer meets starts from
        `initial_state`, unless it walks forwards and meets a reset there. Masked steps reset nothing. Only
        the scan computes it. None: a row is one sequence.
      initial_state: (h, c) before the first step. None: zeros.
      input_scale: multiplies the inputs at every step, as a dropout mask shared over time. It gets no
        gradient. None: ones.
      recurrent_scale: multiplies h before the recurrent product at every step, in the same way. Only the
        scan computes it. None: ones.
      reverse: run from the last step to the first. Outputs keep the order of the inputs.
      dtype: dtype of the matrix products, such as bfloat16. None: that of `inputs`. The carry, the gates
        and the returned state stay float32, or float64 where `dtype` is float64. On a CPU, bfloat16 takes
        the kernel if the CPU has AVX-512, else the scan.
      implementation: "auto", "scan", "native", "fused" or "cudnn"; see `lstm_implementation`.
      chunk_size: keep the state for the gradient only once in this many steps and recompute the others
        (Chen et al. 2016, arXiv 1604.06174). This saves memory and costs one more forward pass.
        0: keep all.

    Returns:
      `outputs` [batch, time, hidden] of `dtype`, exactly 0 at masked steps, and the state `(h, c)` after
      the last real step in the direction of travel. A row without real steps returns its initial state.

    Raises:
      ValueError: a shape or a mask's dtype is wrong; the message names what was expected and found.
        Also where the implementation that is asked for cannot run.

    Example:
      >>> import jax.numpy as jnp
      >>> outputs, (h, c) = lstm(jnp.ones((1, 3, 2)), jnp.ones((2, 4)), jnp.ones((1, 4)), jnp.zeros(4))
      >>> outputs.shape, h.shape
      ((1, 3, 1), (1, 1))
    """
    inputs, weights, mask, resets, state, scales = _checked(
        (), inputs, (kernel, recurrent_kernel, bias), mask, lengths, resets, initial_state,
        (input_scale, recurrent_scale),
    )  # fmt: skip
    kernel, recurrent_kernel, bias = (x[None] for x in weights)
    input_scale, recurrent_scale = (None if x is None else x[None] for x in scales)
    outputs, (h, c) = run_layer(
        inputs,
        kernel,
        recurrent_kernel,
        bias,
        mask,
        None if state is None else tuple(x[None] for x in state),
        input_scale,
        recurrent_scale,
        resets,
        reverse=reverse,
        dtype=dtype,
        implementation=implementation,
        chunk_size=chunk_size,
    )
    return outputs, (h[0], c[0])


def bilstm(
    inputs: Float[Array, "batch time features"],
    kernel: Float[Array, "2 features 4*hidden"],
    recurrent_kernel: Float[Array, "2 hidden 4*hidden"],
    bias: Float[Array, "2 4*hidden"],
    *,
    mask: Bool[Array, "batch time"] | None = None,
    lengths: Int[Array, "batch"] | None = None,
    resets: Bool[Array, "batch time"] | None = None,
    initial_state: tuple[Array, Array] | None = None,
    input_scale: Float[Array, "2 batch features"] | None = None,
    recurrent_scale: Float[Array, "2 batch hidden"] | None = None,
    dtype: DTypeLike | None = None,
    implementation: str = "auto",
    chunk_size: int = 0,
) -> tuple[Float[Array, "batch time 2*hidden"], tuple[Array, Array]]:
    """Runs two LSTMs over the same inputs, one from each end (Schuster and Paliwal 1997).

    The arguments are those of `lstm`. Weights, scales and states have a leading axis of 2: forward, then
    backward. Outputs are [batch, time, 2*hidden], forward features first. The state is (h, c), each
    [2, batch, hidden].

    Example:
      >>> import jax.numpy as jnp
      >>> outputs, (h, c) = bilstm(
      ...     jnp.ones((1, 3, 5)), jnp.ones((2, 5, 4)), jnp.ones((2, 1, 4)), jnp.zeros((2, 4)))
      >>> outputs.shape, h.shape
      ((1, 3, 2), (2, 1, 1))
    """
    inputs, weights, mask, resets, state, scales = _checked(
        (2,), inputs, (kernel, recurrent_kernel, bias), mask, lengths, resets, initial_state,
        (input_scale, recurrent_scale),
    )  # fmt: skip
    kernel, recurrent_kernel, bias = weights
    input_scale, recurrent_scale = scales
    return run_layer(
        inputs,
        kernel,
        recurrent_kernel,
        bias,
        mask,
        state,
        input_scale,
        recurrent_scale,
        resets,
        reverse=False,
        dtype=dtype,
        implementation=implementation,
        chunk_size=chunk_size,
    )


def lstm_step(
    carry: State,
    inputs: Float[Array, "batch features"],
    kernel: Float[Array, "features 4*hidden"],
    recurrent_kernel: Float[Array, "hidden 4*hidden"],
    bias: Float[Array, "4*hidden"],
    *,
    mask: Bool[Array, "batch"] | None = None,
    input_scale: Float[Array, "batch features"] | None = None,
    recurrent_scale: Float[Array, "batch hidden"] | None = None,
    dtype: DTypeLike | None = None,
) -> tuple[State, Float[Array, "batch hidden"]]:
    """Runs one step of `lstm`, for a decoder or a loop that chooses its next input.

    Takes and returns the carry first, as `jax.lax.scan` and Flax's cells do. It is plain JAX.

    Args:
      carry: (h, c).
      inputs: the step's inputs.
      kernel, recurrent_kernel, bias: the weights, as in `lstm`.
      mask: True where the step is real. Other rows keep their carry and output 0. None: all are real.
      input_scale, recurrent_scale, dtype: as in `lstm`.

    Returns:
      the new carry (h, c), and the output: h in `dtype`, 0 where masked.

    Raises:
      ValueError: a shape or the mask's dtype is wrong; the message names what was expected and found.

    Example:
      >>> import jax.numpy as jnp
      >>> zeros = jnp.zeros((1, 1))
      >>> (h, c), output = lstm_step(
      ...     (zeros, zeros), jnp.ones((1, 2)), jnp.ones((2, 4)), jnp.ones((1, 4)), jnp.zeros(4))
      >>> h.shape, output.shape
      ((1, 1), (1, 1))
    """
    inputs = floating(inputs)
    if inputs.ndim != 2:
        raise ValueError(f"inputs: expected [batch, features], got shape {inputs.shape}")
    if mask is not None:
        mask = jnp.asarray(mask)
        check_mask("mask", mask, inputs.shape[:1])
    _, weights, _, _, carry, scales = _checked(
        (), inputs[:, None], (kernel, recurrent_kernel, bias), None, None, None, carry,
        (input_scale, recurrent_scale), state_name="carry",
    )  # fmt: skip
    dtype = jax.dtypes.canonicalize_dtype(dtype or inputs.dtype)
    return _step(carry, inputs, weights, mask, scales, dtype=dtype)


@partial(jax.jit, static_argnames="dtype", inline=True)
def _step(carry, inputs, weights, mask, scales, *, dtype):
    carry_dtype = jnp.promote_types(dtype, jnp.float32)
    kernel, recurrent_kernel, bias = weights
    input_scale, recurrent_scale = (
        None if x is None else jax.lax.stop_gradient(x).astype(t)
        for x, t in zip(scales, (dtype, carry_dtype), strict=True)
    )
    real = None if mask is None else mask[:, None]
    inputs = inputs.astype(dtype)
    if real is not None:
        inputs = jnp.where(real, inputs, 0)  # 0 * NaN is NaN
    if input_scale is not None:
        inputs = inputs * input_scale
    product = jnp.matmul(inputs, kernel.astype(dtype), preferred_element_type=carry_dtype)
    projected = product + bias.astype(carry_dtype)[None]
    carry = tuple(x.astype(carry_dtype) for x in carry)
    carry, output, _ = step_of(
        carry, recurrent_kernel.astype(dtype), projected, real, recurrent_scale
    )
    return carry, output.astype(dtype)


def _checked(
    directions, inputs, weights, mask, lengths, resets, state, scales, *, state_name="initial_state"
) -> Any:
    """Converts whatever NumPy takes (lists, integers, float64) to JAX arrays, and checks their shapes."""
    inputs, weights = floating(inputs), [floating(x) for x in weights]
    state = None if state is None else tuple(map(floating, state))
    scales = [None if x is None else floating(x) for x in scales]
    if inputs.ndim != 3:
        raise ValueError(f"inputs: expected [batch, time, features], got shape {inputs.shape}")
    batch, time, features = inputs.shape
    recurrent_kernel = weights[1]
    hidden = recurrent_kernel.shape[-2] if recurrent_kernel.ndim > 1 else "hidden"
    gates = 4 * hidden if recurrent_kernel.ndim > 1 else "4*hidden"
    expected = {
        "kernel": (weights[0], (features, gates)),
        "recurrent_kernel": (recurrent_kernel, (hidden, gates)),
        "bias": (weights[2], (gates,)),
        "input_scale": (scales[0], (batch, features)),
        "recurrent_scale": (scales[1], (batch, hidden)),
    }
    if state is not None:
        h, c = state
        expected[f"{state_name} h"] = (h, (batch, hidden))
        expected[f"{state_name} c"] = (c, (batch, hidden))
    for name, (array, shape) in expected.items():
        if array is not None and array.shape != (*directions, *shape):
            raise ValueError(f"{name}: expected shape {(*directions, *shape)}, got {array.shape}")
    if resets is not None:
        resets = jnp.asarray(resets)
        if resets.shape != (batch, time) or resets.dtype != jnp.bool_:
            found = f"{resets.dtype} {resets.shape}"
            raise ValueError(f"resets: expected bool {(batch, time)}, got {found}")
    return inputs, weights, mask_of(mask, lengths, batch, time), resets, state, scales
