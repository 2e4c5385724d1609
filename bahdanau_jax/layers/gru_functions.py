"""`gru()` runs one GRU layer over masked sequences, `gru_step()` one step of it; gru.py has the modules.

Any boolean mask is exact, as in lstm.py. Two variants differ in where the reset gate acts. `reset_after=True`
resets the product of the state, as flax, PyTorch, cuDNN and Keras's default do. `reset_after=False` resets the
state itself, as Cho et al. 2014 (arXiv 1406.1078, eq. 8) and Bahdanau et al. 2015 (A.1.1) do.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers.devices import in_auto_mode, vary_alike
from bahdanau_jax.layers.dtypes import floating
from bahdanau_jax.layers.masks import check_mask, mask_of, resets_of


def gru(
    inputs: Float[Array, "batch time features"],
    kernel: Float[Array, "features 3*hidden"],
    recurrent_kernel: Float[Array, "hidden 3*hidden"],
    bias: Float[Array, "3*hidden"],
    recurrent_bias: Float[Array, "hidden"] | None = None,
    *,
    mask: Bool[Array, "batch time"] | None = None,
    lengths: Int[Array, "batch"] | None = None,
    initial_state: Float[Array, "batch hidden"] | None = None,
    resets: Bool[Array, "batch time"] | None = None,
    input_scale: Float[Array, "batch features"] | None = None,
    recurrent_scale: Float[Array, "batch hidden"] | None = None,
    reverse: bool = False,
    reset_after: bool = True,
    dtype: DTypeLike | None = None,
) -> tuple[Float[Array, "batch time hidden"], Float[Array, "batch hidden"]]:
    """Runs one GRU layer over time (Cho et al. 2014). Every JAX transformation applies to it.

    At each real step, with the gates in flax's and PyTorch's order r, z, n (Keras: z, r, n)::

        r, z = sigmoid(x @ kernel[r, z] + h @ recurrent_kernel[r, z] + bias[r, z])
        n = tanh(x @ kernel[n] + bias[n] + r * (h @ recurrent_kernel[n] + recurrent_bias))  # reset_after
        n = tanh(x @ kernel[n] + bias[n] + (r * h) @ recurrent_kernel[n])                   # otherwise
        h = (1 - z) * n + z * h

    Args:
      inputs: the sequences. Values at masked steps are ignored, even NaN.
      kernel: input weights, the three gates side by side.
      recurrent_kernel: hidden-to-hidden weights, in the same order.
      bias: one bias per gate and unit.
      recurrent_bias: PyTorch's b_hn; only with `reset_after`. Its b_hr and b_hz add to `bias`. None: zeros.
      mask: True where a step is real, in any pattern. None: all steps are real.
      lengths: instead of `mask`, the number of real steps of each row, which come first.
      initial_state: the state before the first step. None: zeros.
      resets: True at real steps where a new sequence starts, from a state of zeros; see `lstm`.
      input_scale: multiplies the inputs at every step, as a dropout mask shared over time; no gradient.
      recurrent_scale: multiplies h in the recurrent products in the same way, as in Keras. `z * h` keeps h.
      reverse: run from the last step to the first. Outputs keep the order of the inputs.
      reset_after: the variant, see above.
      dtype: dtype of the matrix products, such as bfloat16. None: that of `inputs`. The state and the gates
        stay float32, or float64 where `dtype` is float64.

    Returns:
      `outputs` [batch, time, hidden] of `dtype`, exactly 0 at masked steps, and the state after the last real
      step in the direction of travel. A row without real steps returns its initial state.

    Raises:
      ValueError: a shape or the mask's dtype is wrong; the message names what was expected and found.

    Example:
      >>> import jax.numpy as jnp
      >>> outputs, h = gru(jnp.ones((1, 3, 2)), jnp.ones((2, 3)), jnp.ones((1, 3)), jnp.zeros(3))
      >>> outputs.shape, h.shape
      ((1, 3, 1), (1, 1))
    """
    inputs, kernel, recurrent_kernel, bias = map(floating, (inputs, kernel, recurrent_kernel, bias))
    if inputs.ndim != 3:
        raise ValueError(f"inputs: expected [batch, time, features], got shape {inputs.shape}")
    mask = mask_of(mask, lengths, *inputs.shape[:2])
    recurrent_bias, initial_state, input_scale, recurrent_scale = (
        None if x is None else floating(x)
        for x in (recurrent_bias, initial_state, input_scale, recurrent_scale)
    )
    if resets is not None:
        resets = jnp.asarray(resets)
        check_mask("resets", resets, inputs.shape[:2])
    if recurrent_bias is not None and not reset_after:
        raise ValueError("recurrent_bias: expected None where reset_after is False, got an array")
    weights = kernel, recurrent_kernel, bias, recurrent_bias
    _check_shapes(inputs, *weights, initial_state, input_scale, recurrent_scale)
    run = in_auto_mode(
        partial(_run, reverse=reverse, reset_after=reset_after, dtype=dtype),
        inputs,
        lambda rows: (PartitionSpec(rows, None, None), PartitionSpec(rows, None)),
    )
    return run((inputs, *weights, mask, initial_state, resets, input_scale, recurrent_scale))


def gru_step(
    carry: Float[Array, "batch hidden"],
    inputs: Float[Array, "batch features"],
    kernel: Float[Array, "features 3*hidden"],
    recurrent_kernel: Float[Array, "hidden 3*hidden"],
    bias: Float[Array, "3*hidden"],
    recurrent_bias: Float[Array, "hidden"] | None = None,
    *,
    mask: Bool[Array, "batch"] | None = None,
    input_scale: Float[Array, "batch features"] | None = None,
    recurrent_scale: Float[Array, "batch hidden"] | None = None,
    reset_after: bool = True,
    dtype: DTypeLike | None = None,
) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]:
    """Runs one step of `gru`; returns the new carry and the output, as `jax.lax.scan` takes them.

    Rows whose `mask` is False keep their carry and output 0. The other arguments are `gru`'s.

    Example:
      >>> import jax.numpy as jnp
      >>> h, output = gru_step(
      ...     jnp.zeros((1, 1)), jnp.ones((1, 2)), jnp.ones((2, 3)), jnp.ones((1, 3)), jnp.zeros(3))
      >>> h.shape, output.shape
      ((1, 1), (1, 1))
    """
    inputs = floating(inputs)
    if inputs.ndim != 2:
        raise ValueError(f"inputs: expected [batch, features], got shape {inputs.shape}")
    outputs, carry = gru(
        inputs[:, None],
        kernel,
        recurrent_kernel,
        bias,
        recurrent_bias,
        mask=None if mask is None else jnp.asarray(mask)[:, None],
        initial_state=carry,
        input_scale=input_scale,
        recurrent_scale=recurrent_scale,
        reset_after=reset_after,
        dtype=dtype,
    )
    return carry, outputs[:, 0]


def next_state(
    projected: Float[Array, "batch 3*hidden"],
    h: Float[Array, "batch hidden"],
    recurrent_kernel: Float[Array, "hidden 3*hidden"],
    recurrent_bias: Float[Array, "hidden"] | None,
    recurrent_scale: Float[Array, "batch hidden"] | None = None,
    *,
    reset_after: bool,
) -> Float[Array, "batch hidden"]:
    """The state after one step, from inputs that are already projected (x @ kernel + bias)."""
    before, hidden = h, h.shape[-1]
    if recurrent_scale is not None:
        h = h * recurrent_scale
    x_rz, x_n = projected[..., : 2 * hidden], projected[..., 2 * hidden :]
    if reset_after:
        product = _product(h, recurrent_kernel)
        h_rz, h_n = product[..., : 2 * hidden], product[..., 2 * hidden :]
        if recurrent_bias is not None:
            h_n += recurrent_bias[None]
    else:
        h_rz, h_n = _product(h, recurrent_kernel[:, : 2 * hidden]), None
    r, z = jnp.split(jax.nn.sigmoid(x_rz + h_rz), 2, axis=-1)
    if h_n is None:
        n = jnp.tanh(x_n + _product(r * h, recurrent_kernel[:, 2 * hidden :]))
    else:
        n = jnp.tanh(x_n + r * h_n)
    return (1 - z) * n + z * before


def _product(a, b):
    """a @ b, multiplied in b's dtype and summed in a's."""
    return jnp.matmul(a.astype(b.dtype), b, preferred_element_type=a.dtype)


def _run(arrays, *, reverse: bool, reset_after: bool, dtype: DTypeLike | None):
    inputs, kernel, recurrent_kernel, bias, recurrent_bias, mask, h, resets, *scales = arrays
    dtype = jax.dtypes.canonicalize_dtype(dtype or inputs.dtype)
    carry = jnp.promote_types(dtype, jnp.float32)
    input_scale, recurrent_scale = (
        None if x is None else jax.lax.stop_gradient(x).astype(kind)
        for x, kind in zip(scales, (inputs.dtype, carry), strict=True)
    )
    if mask is not None:
        # Keeps NaN at masked steps out of the weights' gradient.
        inputs = jnp.where(mask[:, :, None], inputs, 0)
    if input_scale is not None:
        inputs = inputs * input_scale[:, None, :]
    inputs, kernel, recurrent_kernel = (x.astype(dtype) for x in (inputs, kernel, recurrent_kernel))
    if h is None:
        h = jnp.zeros((inputs.shape[0], recurrent_kernel.shape[0]))
    h = h.astype(carry)
    recurrent_bias = None if recurrent_bias is None else recurrent_bias.astype(carry)
    # One product projects the inputs of all steps: [time, batch, 3*hidden].
    projected = jnp.matmul(jnp.swapaxes(inputs, 0, 1), kernel, preferred_element_type=carry)
    projected += bias.astype(carry)[None, None]
    if resets is not None:
        resets = resets_of(resets, mask, reverse)
    # [time, batch, 1]
    real, resets = (None if x is None else x.T[:, :, None] for x in (mask, resets))
    h, recurrent_kernel, recurrent_bias, recurrent_scale, projected, real, resets = vary_alike(
        (h, recurrent_kernel, recurrent_bias, recurrent_scale, projected, real, resets)
    )
    weights = recurrent_kernel, recurrent_bias, recurrent_scale

    def step(h, xs):
        projected, real, reset = xs
        if reset is not None:
            h = jnp.where(reset, 0, h)
        new = next_state(projected, h, *weights, reset_after=reset_after)
        if real is None:
            return new, new
        return jnp.where(real, new, h), jnp.where(real, new, 0)

    h, outputs = jax.lax.scan(step, h, (projected, real, resets), reverse=reverse)
    return jnp.swapaxes(outputs, 0, 1).astype(dtype), h


def _check_shapes(
    inputs,
    kernel,
    recurrent_kernel,
    bias,
    recurrent_bias,
    initial_state,
    input_scale,
    recurrent_scale,
) -> None:
    batch, _, features = inputs.shape
    hidden = recurrent_kernel.shape[0] if recurrent_kernel.ndim else 0
    expected = {
        "kernel": (kernel, (features, 3 * hidden)),
        "recurrent_kernel": (recurrent_kernel, (hidden, 3 * hidden)),
        "bias": (bias, (3 * hidden,)),
        "recurrent_bias": (recurrent_bias, (hidden,)),
        "initial_state": (initial_state, (batch, hidden)),
        "input_scale": (input_scale, (batch, features)),
        "recurrent_scale": (recurrent_scale, (batch, hidden)),
    }
    for name, (array, shape) in expected.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
