"""The recurrent core: one LSTM layer over time, and the modules on top of it.

`lstm()` is the pure function (arrays in, arrays out); `LSTM` and `BiLSTM` hold its weights. Any boolean
mask is exact: a masked step is skipped as if it were not there, so padding in front, behind or between
real steps never changes a result or a gradient.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

State = tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]


def lstm(
    inputs: Float[Array, "batch time features"],
    kernel: Float[Array, "features 4*hidden"],
    recurrent_kernel: Float[Array, "hidden 4*hidden"],
    bias: Float[Array, "4*hidden"],
    *,
    mask: Bool[Array, "batch time"] | None = None,
    initial_state: State | None = None,
    reverse: bool = False,
    dtype: DTypeLike | None = None,
) -> tuple[Float[Array, "batch time hidden"], State]:
    """Runs one LSTM layer over time (Hochreiter and Schmidhuber 1997; forget gate of Gers et al. 2000).

    At each real step, with the gates in Keras's and PyTorch's order i, f, g, o::

        i, f, g, o = split(x @ kernel + h @ recurrent_kernel + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)

    Args:
      inputs: the sequence; what stands at masked steps is never looked at, not even a NaN.
      kernel: input weights, the four gates side by side.
      recurrent_kernel: hidden-to-hidden weights, likewise.
      bias: one bias per gate and unit.
      mask: True where a step is real. Any pattern. None: every step is real.
      initial_state: (h, c) before the first step, float32. None: zeros.
      reverse: run from the last step to the first; outputs stay in the inputs' order.
      dtype: what the matrix products compute in (bfloat16 or float32); None: that of `inputs`. The carry,
        the gates and the returned state are float32 (float64 where the inputs are) under any dtype.

    Returns:
      `outputs` [batch, time, hidden], of `dtype`, exactly 0 at masked steps, and the state `(h, c)`
      after the last real step in the direction of travel. A row without a real step returns its
      initial state.

    Raises:
      ValueError: where shapes disagree, naming what was expected and what came.

    Example:
      >>> import jax.numpy as jnp
      >>> outputs, (h, c) = lstm(jnp.ones((1, 3, 2)), jnp.ones((2, 4)), jnp.ones((1, 4)), jnp.zeros(4))
      >>> outputs.shape, h.shape
      ((1, 3, 1), (1, 1))
    """
    _check_shapes(inputs, kernel, recurrent_kernel, bias, mask, initial_state)
    dtype = jnp.dtype(dtype or inputs.dtype)
    carry_dtype = jnp.promote_types(inputs.dtype, jnp.float32)
    batch, hidden = inputs.shape[0], recurrent_kernel.shape[0]
    if initial_state is None:
        zeros = jnp.zeros((batch, hidden), carry_dtype)
        initial_state = zeros, zeros
    h, c = initial_state
    carry = h.astype(carry_dtype), c.astype(carry_dtype)
    if mask is not None:
        # Also keeps a NaN or infinity at a masked step out of the weights' gradient (0 * inf is NaN).
        inputs = jnp.where(mask[:, :, None], inputs, 0)

    # The input projections of all steps are one large product: only what must be sequential is scanned.
    # [time, batch, 4*hidden]: lax.scan walks the leading axis.
    projected = jnp.matmul(
        jnp.swapaxes(inputs, 0, 1).astype(dtype),
        kernel.astype(dtype),
        preferred_element_type=carry_dtype,
    ) + bias.astype(carry_dtype)
    recurrent_kernel = recurrent_kernel.astype(dtype)

    def step(carry: State, xs: tuple[Array, Array | None]) -> tuple[State, Array]:
        h, c = carry  # [batch, hidden]
        projected_t, real_t = xs  # [batch, 4*hidden], [batch, 1]
        gates = projected_t + jnp.matmul(
            h.astype(dtype), recurrent_kernel, preferred_element_type=carry_dtype
        )
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
        if real_t is None:
            return (new_h, new_c), new_h.astype(dtype)
        output = jnp.where(real_t, new_h, 0).astype(dtype)
        return (jnp.where(real_t, new_h, h), jnp.where(real_t, new_c, c)), output

    real = None if mask is None else mask.T[:, :, None]  # [time, batch, 1]
    state, outputs = jax.lax.scan(step, carry, (projected, real), reverse=reverse)
    return jnp.swapaxes(outputs, 0, 1), state


def _check_shapes(inputs, kernel, recurrent_kernel, bias, mask, initial_state) -> None:
    if inputs.ndim != 3:
        raise ValueError(f"inputs: expected [batch, time, features], got shape {inputs.shape}")
    batch, time, features = inputs.shape
    hidden = recurrent_kernel.shape[0]
    expected = {
        "kernel": (kernel, (features, 4 * hidden)),
        "recurrent_kernel": (recurrent_kernel, (hidden, 4 * hidden)),
        "bias": (bias, (4 * hidden,)),
    }
    if mask is not None:
        expected["mask"] = (mask, (batch, time))
        if mask.dtype != jnp.bool_:
            raise ValueError(f"mask: expected bool (True = real step), got {mask.dtype}")
    if initial_state is not None:
        h, c = initial_state
        expected["initial_state h"] = (h, (batch, hidden))
        expected["initial_state c"] = (c, (batch, hidden))
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


class LSTM(nnx.Module):
    """One LSTM layer in one direction.

    Weights start as Keras's do: Glorot-uniform `kernel` [in, 4*hidden], orthogonal `recurrent_kernel`
    [hidden, 4*hidden], zero `bias` [4*hidden] but 1 for the forget gate (Jozefowicz et al. 2015).

    `dropout` is Keras's `LSTM(dropout=...)`: one mask over the input features per sequence, shared by
    all time steps (Gal and Ghahramani 2016, 1512.05287). It is active in training mode
    (`model.train()`), and off after `model.eval()`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> layer = LSTM(in_features=8, hidden_features=4, rngs=nnx.Rngs(0))
      >>> outputs, (h, c) = layer(jnp.ones((2, 5, 8)), mask=jnp.ones((2, 5), bool))
      >>> outputs.shape, h.shape
      ((2, 5, 4), (2, 4))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        reverse: bool = False,
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.reverse = reverse
        self.dtype = dtype
        gates = 4 * hidden_features
        glorot, orthogonal = nnx.initializers.glorot_uniform(), nnx.initializers.orthogonal()
        self.kernel = nnx.Param(glorot(rngs.params(), (in_features, gates)))
        self.recurrent_kernel = nnx.Param(orthogonal(rngs.params(), (hidden_features, gates)))
        forget = jnp.arange(gates) // hidden_features == 1
        self.bias = nnx.Param(forget.astype(jnp.float32))
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1,), rngs=rngs)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"],
        mask: Bool[Array, "batch time"] | None = None,
        initial_state: State | None = None,
    ) -> tuple[Float[Array, "batch time hidden"], State]:
        return lstm(
            self.dropout(inputs),
            self.kernel[...],
            self.recurrent_kernel[...],
            self.bias[...],
            mask=mask,
            initial_state=initial_state,
            reverse=self.reverse,
            dtype=self.dtype,
        )


class BiLSTM(nnx.Module):
    """Two LSTM layers over the same inputs, one from each end (Schuster and Paliwal 1997).

    Each direction draws its own dropout mask, as under Keras's `Bidirectional`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> encoder = BiLSTM(in_features=128, hidden_features=64, rngs=nnx.Rngs(0))
      >>> outputs, (h, c) = encoder(jnp.ones((2, 5, 128)))
      >>> outputs.shape, h.shape
      ((2, 5, 128), (2, 128))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        layer = partial(LSTM, in_features, hidden_features, dropout=dropout, dtype=dtype, rngs=rngs)
        self.forward = layer()
        self.backward = layer(reverse=True)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"],
        mask: Bool[Array, "batch time"] | None = None,
        initial_state: State | None = None,
    ) -> tuple[Float[Array, "batch time 2*hidden"], State]:
        """Runs both directions.

        Args:
          inputs: [batch, time, in_features].
          mask: [batch, time] bool, True where a step is real; any pattern; None: all are.
          initial_state: (h, c), each [batch, 2*hidden]: the forward half, then the backward half.

        Returns:
          outputs [batch, time, 2*hidden], forward then backward features, 0 where masked, and (h, c),
          each [batch, 2*hidden]: the forward direction's state after the last real step beside the
          backward direction's after the first.
        """
        starts: tuple[State | None, State | None] = (None, None)
        if initial_state is not None:
            (h_fwd, h_bwd), (c_fwd, c_bwd) = (jnp.split(x, 2, axis=-1) for x in initial_state)
            starts = ((h_fwd, c_fwd), (h_bwd, c_bwd))
        forward, forward_state = self.forward(inputs, mask, starts[0])
        backward, backward_state = self.backward(inputs, mask, starts[1])
        h, c = (
            jnp.concatenate(pair, axis=-1)
            for pair in zip(forward_state, backward_state, strict=True)
        )
        return jnp.concatenate([forward, backward], axis=-1), (h, c)
