"""The recurrent core: one LSTM layer over time, and the modules on top of it.

`lstm()` is the pure function (arrays in, arrays out), `bilstm()` the same from both ends; `LSTM` and
`BiLSTM` hold the weights. Any boolean mask is exact: a masked step is skipped as if it were not there,
so padding in front, behind or between real steps never changes a result or a gradient.

Two implementations give the same results to the rounding of their dtype: `scan`, a `jax.lax.scan` that
runs anywhere, and `native`, a kernel for CPUs (`bahdanau_jax/native/`) that runs the whole layer and
does no work on padding. `lstm_implementation()` says which one is taken and why.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from bahdanau_jax import native

State = tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]

IMPLEMENTATIONS = ("auto", "scan", "native")


def lstm_implementation(
    implementation: str = "auto", *, dtype: DTypeLike = jnp.float32
) -> tuple[str, str]:
    """Which implementation `lstm()` takes, and why.

    Args:
      implementation: "auto", "scan" or "native".
      dtype: of the computation.

    Raises:
      ValueError: for an unknown name, or "native" where it cannot run: nothing falls back silently.

    Example:
      >>> lstm_implementation("scan")
      ('scan', 'asked for')
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation is {implementation!r}; expected one of {IMPLEMENTATIONS}")
    if implementation == "scan":
        return "scan", "asked for"
    if jax.default_backend() != "cpu":
        obstacle = f"the platform is {jax.default_backend()}, and native is for CPUs"
    elif jax.device_count() > 1:
        obstacle = f"there are {jax.device_count()} devices, over which XLA can split a scan only"
    elif jnp.dtype(dtype) != jnp.float32:
        obstacle = f"the dtype is {jnp.dtype(dtype)}, and native computes in float32"
    else:
        obstacle = native.obstacle()
    if obstacle is None:
        return "native", "asked for" if implementation == "native" else "a CPU, float32"
    if implementation == "native":
        raise ValueError(f"implementation is 'native', which cannot run here: {obstacle}")
    return "scan", obstacle


def lstm(
    inputs: Float[Array, "batch time features"],
    kernel: Float[Array, "features 4*hidden"],
    recurrent_kernel: Float[Array, "hidden 4*hidden"],
    bias: Float[Array, "4*hidden"],
    *,
    mask: Bool[Array, "batch time"] | None = None,
    initial_state: State | None = None,
    input_scale: Float[Array, "batch features"] | None = None,
    reverse: bool = False,
    dtype: DTypeLike | None = None,
    implementation: str = "auto",
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
      input_scale: multiplies the inputs at every step: a dropout mask shared over time. It gets no
        gradient. None: ones.
      reverse: run from the last step to the first; outputs stay in the inputs' order.
      dtype: what the matrix products compute in (bfloat16 or float32); None: that of `inputs`. The carry,
        the gates and the returned state are float32 (float64 where the inputs are) under any dtype.
      implementation: "auto", or "scan" or "native" to force one; see `lstm_implementation`.

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
    _check_shapes(inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale)
    outputs, (h, c) = _layer(
        inputs,
        kernel[None],
        recurrent_kernel[None],
        bias[None],
        mask,
        None if initial_state is None else tuple(x[None] for x in initial_state),
        None if input_scale is None else input_scale[None],
        reverse=reverse,
        dtype=dtype,
        implementation=implementation,
    )
    return outputs, (h[0], c[0])


def bilstm(
    inputs: Float[Array, "batch time features"],
    kernel: Float[Array, "2 features 4*hidden"],
    recurrent_kernel: Float[Array, "2 hidden 4*hidden"],
    bias: Float[Array, "2 4*hidden"],
    *,
    mask: Bool[Array, "batch time"] | None = None,
    initial_state: tuple[Array, Array] | None = None,
    input_scale: Float[Array, "2 batch features"] | None = None,
    dtype: DTypeLike | None = None,
    implementation: str = "auto",
) -> tuple[Float[Array, "batch time 2*hidden"], tuple[Array, Array]]:
    """Runs two LSTMs over the same inputs, one from each end (Schuster and Paliwal 1997).

    Arguments are those of `lstm`, with a leading axis of 2: forward, then backward. So is the state,
    (h, c) of [2, batch, hidden] each. Outputs are [batch, time, 2*hidden], forward features first.

    Example:
      >>> import jax.numpy as jnp
      >>> outputs, (h, c) = bilstm(
      ...     jnp.ones((1, 3, 5)), jnp.ones((2, 5, 4)), jnp.ones((2, 1, 4)), jnp.zeros((2, 4)))
      >>> outputs.shape, h.shape
      ((1, 3, 2), (2, 1, 1))
    """
    for d in range(2):
        starts = None if initial_state is None else (initial_state[0][d], initial_state[1][d])
        scale = None if input_scale is None else input_scale[d]
        _check_shapes(inputs, kernel[d], recurrent_kernel[d], bias[d], mask, starts, scale)
    return _layer(
        inputs,
        kernel,
        recurrent_kernel,
        bias,
        mask,
        initial_state,
        input_scale,
        reverse=False,
        dtype=dtype,
        implementation=implementation,
    )


def _layer(
    inputs,  # [batch, time, features]
    kernel,  # [directions, features, 4*hidden], as all that follows
    recurrent_kernel,
    bias,
    mask,
    initial_state,
    input_scale,
    *,
    reverse: bool,
    dtype,
    implementation: str,
):
    """One or two directions, the second against the first; all with a leading axis of directions."""
    directions, hidden = recurrent_kernel.shape[:2]
    dtype = jnp.dtype(dtype or inputs.dtype)
    carry_dtype = jnp.promote_types(inputs.dtype, jnp.float32)
    if initial_state is None:
        zeros = jnp.zeros((directions, inputs.shape[0], hidden), carry_dtype)
        initial_state = zeros, zeros
    h, c = (x.astype(carry_dtype) for x in initial_state)
    if input_scale is not None:
        input_scale = jax.lax.stop_gradient(input_scale)
    if lstm_implementation(implementation, dtype=dtype)[0] == "native":
        return native.layer(
            inputs, mask, input_scale, kernel, recurrent_kernel, bias, h, c, reverse=reverse
        )
    if mask is not None:
        # Also keeps a NaN or infinity at a masked step out of the weights' gradient (0 * inf is NaN).
        inputs = jnp.where(mask[:, :, None], inputs, 0)
    outputs, states = zip(
        *(
            _scan(
                inputs if input_scale is None else inputs * input_scale[d][:, None, :],
                kernel[d],
                recurrent_kernel[d],
                bias[d],
                mask,
                (h[d], c[d]),
                reverse=reverse != (d == 1),
                dtype=dtype,
            )
            for d in range(directions)
        ),
        strict=True,
    )
    h, c = (jnp.stack(x) for x in zip(*states, strict=True))
    return jnp.concatenate(outputs, axis=-1), (h, c)


def _scan(inputs, kernel, recurrent_kernel, bias, mask, carry: State, *, reverse: bool, dtype):
    """One direction, as plain JAX; the reference for every other implementation."""
    carry_dtype = carry[0].dtype
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


def _check_shapes(inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale) -> None:
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
    if input_scale is not None:
        expected["input_scale"] = (input_scale, (batch, features))
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
        implementation: str = "auto",
        rngs: nnx.Rngs,
    ):
        self.reverse = reverse
        self.dtype = dtype
        self.implementation = implementation
        gates = 4 * hidden_features
        glorot, orthogonal = nnx.initializers.glorot_uniform(), nnx.initializers.orthogonal()
        self.kernel = nnx.Param(glorot(rngs.params(), (in_features, gates)))
        self.recurrent_kernel = nnx.Param(orthogonal(rngs.params(), (hidden_features, gates)))
        forget = jnp.arange(gates) // hidden_features == 1
        self.bias = nnx.Param(forget.astype(jnp.float32))
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"],
        mask: Bool[Array, "batch time"] | None = None,
        initial_state: State | None = None,
    ) -> tuple[Float[Array, "batch time hidden"], State]:
        return lstm(
            inputs,
            self.kernel[...],
            self.recurrent_kernel[...],
            self.bias[...],
            mask=mask,
            initial_state=initial_state,
            input_scale=self.dropout_mask(inputs),
            reverse=self.reverse,
            dtype=self.dtype,
            implementation=self.implementation,
        )

    def dropout_mask(
        self, inputs: Float[Array, "batch time in"]
    ) -> Float[Array, "batch in"] | None:
        """Draws what each feature of a sequence is multiplied by: 0 or 1 / (1 - rate); None: no dropout."""
        if self.dropout.deterministic or self.dropout.rate == 0:
            return None
        return self.dropout(jnp.ones((inputs.shape[0], inputs.shape[2]), inputs.dtype))


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
        implementation: str = "auto",
        rngs: nnx.Rngs,
    ):
        layer = partial(
            LSTM,
            in_features,
            hidden_features,
            dropout=dropout,
            dtype=dtype,
            implementation=implementation,
            rngs=rngs,
        )
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
        directions = (self.forward, self.backward)

        def both(name: str) -> Array:
            return jnp.stack([getattr(direction, name)[...] for direction in directions])

        if initial_state is not None:  # [batch, 2*hidden] -> [2, batch, hidden]
            h, c = (jnp.stack(jnp.split(x, 2, axis=-1)) for x in initial_state)
            initial_state = h, c
        masks = [direction.dropout_mask(inputs) for direction in directions]
        outputs, state = bilstm(
            inputs,
            both("kernel"),
            both("recurrent_kernel"),
            both("bias"),
            mask=mask,
            initial_state=initial_state,
            input_scale=None if masks[0] is None else jnp.stack(masks),
            dtype=self.forward.dtype,
            implementation=self.forward.implementation,
        )
        h, c = (jnp.concatenate([x[0], x[1]], axis=-1) for x in state)
        return outputs, (h, c)
