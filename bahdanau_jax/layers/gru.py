"""GRU layers over masked sequences: `gru()` is a function, `GRU` and `BiGRU` hold weights.

Any boolean mask is exact, as in lstm.py. Two variants differ in where the reset gate acts. `reset_after=True`
resets the product of the state, as flax, PyTorch, cuDNN and Keras's default do. `reset_after=False` resets the
state itself, as Cho et al. 2014 (arXiv 1406.1078, eq. 8) and Bahdanau et al. 2015 (A.1.1) do.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from bahdanau_jax.layers.devices import in_auto_mode, vary_alike
from bahdanau_jax.layers.dtypes import floating


def gru(
    inputs: Float[Array, "batch time features"],
    kernel: Float[Array, "features 3*hidden"],
    recurrent_kernel: Float[Array, "hidden 3*hidden"],
    bias: Float[Array, "3*hidden"],
    recurrent_bias: Float[Array, "hidden"] | None = None,
    *,
    mask: Bool[Array, "batch time"] | None = None,
    initial_state: Float[Array, "batch hidden"] | None = None,
    input_scale: Float[Array, "batch features"] | None = None,
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
      initial_state: the state before the first step. None: zeros.
      input_scale: multiplies the inputs at every step, as a dropout mask shared over time. It gets no
        gradient. None: ones.
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
    mask = None if mask is None else jnp.asarray(mask)
    recurrent_bias, initial_state, input_scale = (
        None if x is None else floating(x) for x in (recurrent_bias, initial_state, input_scale)
    )
    if recurrent_bias is not None and not reset_after:
        raise ValueError("recurrent_bias: expected None where reset_after is False, got an array")
    weights = kernel, recurrent_kernel, bias, recurrent_bias
    arrays = inputs, *weights, mask, initial_state, input_scale
    _check_shapes(*arrays)
    run = in_auto_mode(
        partial(_run, reverse=reverse, reset_after=reset_after, dtype=dtype),
        inputs,
        lambda rows: (PartitionSpec(rows, None, None), PartitionSpec(rows, None)),
    )
    return run(arrays)


def gru_step(
    projected: Float[Array, "batch 3*hidden"],
    h: Float[Array, "batch hidden"],
    recurrent_kernel: Float[Array, "hidden 3*hidden"],
    recurrent_bias: Float[Array, "hidden"] | None = None,
    *,
    reset_after: bool = True,
) -> Float[Array, "batch hidden"]:
    """Returns the state after one step, from inputs that are already projected (x @ kernel + bias).

    Example:
      >>> import jax.numpy as jnp
      >>> gru_step(jnp.ones((2, 9)), jnp.zeros((2, 3)), jnp.ones((3, 9))).shape
      (2, 3)
    """
    hidden = h.shape[-1]
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
    return (1 - z) * n + z * h


def _product(a, b):
    """a @ b, multiplied in b's dtype and summed in a's."""
    return jnp.matmul(a.astype(b.dtype), b, preferred_element_type=a.dtype)


def _run(arrays, *, reverse: bool, reset_after: bool, dtype: DTypeLike | None):
    inputs, kernel, recurrent_kernel, bias, recurrent_bias, mask, h, input_scale = arrays
    dtype = jax.dtypes.canonicalize_dtype(dtype or inputs.dtype)
    carry = jnp.promote_types(dtype, jnp.float32)
    if mask is not None:
        # Otherwise a NaN or infinity at a masked step gets into the weights' gradient: 0 * inf is NaN.
        inputs = jnp.where(mask[:, :, None], inputs, 0)
    if input_scale is not None:
        inputs = inputs * jax.lax.stop_gradient(input_scale)[:, None, :]
    inputs, kernel, recurrent_kernel = (x.astype(dtype) for x in (inputs, kernel, recurrent_kernel))
    if h is None:
        h = jnp.zeros((inputs.shape[0], recurrent_kernel.shape[0]))
    h = h.astype(carry)
    recurrent_bias = None if recurrent_bias is None else recurrent_bias.astype(carry)
    # One product projects the inputs of all steps: [time, batch, 3*hidden], since lax.scan walks the
    # leading axis.
    projected = jnp.matmul(jnp.swapaxes(inputs, 0, 1), kernel, preferred_element_type=carry)
    projected += bias.astype(carry)[None, None]
    real = None if mask is None else mask.T[:, :, None]  # [time, batch, 1]
    projected, real, h, recurrent_kernel, recurrent_bias = vary_alike(
        (projected, real, h, recurrent_kernel, recurrent_bias)
    )

    def step(h, xs):
        projected, real = xs
        new = gru_step(projected, h, recurrent_kernel, recurrent_bias, reset_after=reset_after)
        if real is None:
            return new, new
        return jnp.where(real, new, h), jnp.where(real, new, 0)

    h, outputs = jax.lax.scan(step, h, (projected, real), reverse=reverse)
    return jnp.swapaxes(outputs, 0, 1).astype(dtype), h


def _check_shapes(
    inputs, kernel, recurrent_kernel, bias, recurrent_bias, mask, initial_state, input_scale
) -> None:
    if inputs.ndim != 3:
        raise ValueError(f"inputs: expected [batch, time, features], got shape {inputs.shape}")
    batch, time, features = inputs.shape
    hidden = recurrent_kernel.shape[0] if recurrent_kernel.ndim else 0
    expected = {
        "kernel": (kernel, (features, 3 * hidden)),
        "recurrent_kernel": (recurrent_kernel, (hidden, 3 * hidden)),
        "bias": (bias, (3 * hidden,)),
        "recurrent_bias": (recurrent_bias, (hidden,)),
        "mask": (mask, (batch, time)),
        "initial_state": (initial_state, (batch, hidden)),
        "input_scale": (input_scale, (batch, features)),
    }
    for name, (array, shape) in expected.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if mask is not None and mask.dtype != jnp.bool_:
        raise ValueError(f"mask: expected bool (True = real step), got {mask.dtype}")


class GRU(nnx.Module):
    """One GRU layer in one direction.

    The initial weights are those of Keras: `kernel` [in, 3*hidden] Glorot-uniform, `recurrent_kernel`
    [hidden, 3*hidden] orthogonal, biases zero.

    Args:
      in_features, hidden_features: sizes.
      reverse: run from the last step to the first.
      reset_after: the variant, see `gru`. With it the layer has a `recurrent_bias` [hidden].
      dropout: as in `LSTM`, the rate of one mask over the input features per sequence, shared by all time
        steps. `model.train()` switches it on, `model.eval()` off.
      dtype: see `gru`.
      rngs: streams `params` and `dropout`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> layer = GRU(in_features=8, hidden_features=4, rngs=nnx.Rngs(0))
      >>> outputs, h = layer(jnp.ones((2, 5, 8)), mask=jnp.ones((2, 5), bool))
      >>> outputs.shape, h.shape
      ((2, 5, 4), (2, 4))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        reverse: bool = False,
        reset_after: bool = True,
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.reverse, self.reset_after, self.dtype = reverse, reset_after, dtype
        gates = 3 * hidden_features
        glorot, orthogonal = nnx.initializers.glorot_uniform(), nnx.initializers.orthogonal()
        self.kernel = nnx.Param(glorot(rngs.params(), (in_features, gates)))
        self.recurrent_kernel = nnx.Param(orthogonal(rngs.params(), (hidden_features, gates)))
        self.bias = nnx.Param(jnp.zeros(gates))
        self.recurrent_bias = nnx.Param(jnp.zeros(hidden_features)) if reset_after else None
        # Without dropout a layer holds no random state.
        self.dropout = nnx.Dropout(dropout, rngs=rngs if dropout else None)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"],
        mask: Bool[Array, "batch time"] | None = None,
        initial_state: Float[Array, "batch hidden"] | None = None,
    ) -> tuple[Float[Array, "batch time hidden"], Float[Array, "batch hidden"]]:
        """Runs the layer; see `gru` for arguments and results."""
        inputs = floating(inputs)
        scale = None
        if self.dropout.rate and not self.dropout.deterministic:
            scale = self.dropout(jnp.ones((inputs.shape[0], inputs.shape[-1]), inputs.dtype))
        return gru(
            inputs,
            self.kernel[...],
            self.recurrent_kernel[...],
            self.bias[...],
            None if self.recurrent_bias is None else self.recurrent_bias[...],
            mask=mask,
            initial_state=initial_state,
            input_scale=scale,
            reverse=self.reverse,
            reset_after=self.reset_after,
            dtype=self.dtype,
        )


class BiGRU(nnx.Module):
    """Two GRU layers over the same inputs, one from each end. See `GRU` for the arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> encoder = BiGRU(in_features=128, hidden_features=64, rngs=nnx.Rngs(0))
      >>> outputs, h = encoder(jnp.ones((2, 5, 128)))
      >>> outputs.shape, h.shape
      ((2, 5, 128), (2, 128))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        reset_after: bool = True,
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        layer = partial(
            GRU,
            in_features,
            hidden_features,
            reset_after=reset_after,
            dropout=dropout,
            dtype=dtype,
            rngs=rngs,
        )
        self.forward = layer()
        self.backward = layer(reverse=True)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"],
        mask: Bool[Array, "batch time"] | None = None,
        initial_state: Float[Array, "batch 2*hidden"] | None = None,
    ) -> tuple[Float[Array, "batch time 2*hidden"], Float[Array, "batch 2*hidden"]]:
        """Runs both directions; arguments and results as `BiLSTM`'s, with h alone as the state."""
        halves = (None, None) if initial_state is None else jnp.split(initial_state, 2, axis=-1)
        outputs, states = zip(
            self.forward(inputs, mask, halves[0]),
            self.backward(inputs, mask, halves[1]),
            strict=True,
        )
        return jnp.concatenate(outputs, axis=-1), jnp.concatenate(states, axis=-1)
