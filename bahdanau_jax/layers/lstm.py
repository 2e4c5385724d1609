"""LSTM layers over masked sequences: `lstm()` and `bilstm()` are functions, `LSTM` and `BiLSTM` hold weights.

Any boolean mask is exact. A masked step is skipped as if it did not exist, so padding before, after or
between real steps changes no result and no gradient.
"""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from bahdanau_jax.layers.dtypes import floating
from bahdanau_jax.layers.recurrence import run_layer

State = tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]


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
      initial_state: (h, c) before the first step. None: zeros.
      input_scale: multiplies the inputs at every step, as a dropout mask shared over time. It gets no
        gradient. None: ones.
      reverse: run from the last step to the first. Outputs keep the order of the inputs.
      dtype: dtype of the matrix products, such as bfloat16. None: that of `inputs`. The carry, the gates
        and the returned state stay float32, or float64 where `dtype` is float64.
      implementation: "auto", "scan", "native" or "cudnn"; see `lstm_implementation`.
      chunk_size: keep the state for the gradient only once in this many steps and recompute the others
        (Chen et al. 2016, arXiv 1604.06174). This saves memory and costs one more forward pass.
        0: keep all.

    Returns:
      `outputs` [batch, time, hidden] of `dtype`, exactly 0 at masked steps, and the state `(h, c)` after
      the last real step in the direction of travel. A row without real steps returns its initial state.

    Raises:
      ValueError: a shape or the mask's dtype is wrong; the message names what was expected and found.
        Also where the implementation that is asked for cannot run.

    Example:
      >>> import jax.numpy as jnp
      >>> outputs, (h, c) = lstm(jnp.ones((1, 3, 2)), jnp.ones((2, 4)), jnp.ones((1, 4)), jnp.zeros(4))
      >>> outputs.shape, h.shape
      ((1, 3, 1), (1, 1))
    """
    inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale = _arrays(
        inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale
    )
    _check_shapes(inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale)
    outputs, (h, c) = run_layer(
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
    initial_state: tuple[Array, Array] | None = None,
    input_scale: Float[Array, "2 batch features"] | None = None,
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
    inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale = _arrays(
        inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale
    )
    _check_shapes(
        inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale, directions=(2,)
    )
    return run_layer(
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
        chunk_size=chunk_size,
    )


def _arrays(inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale):
    """Converts whatever NumPy takes (lists, integers, float64) to JAX arrays; None stays None."""
    inputs, kernel, recurrent_kernel, bias = map(floating, (inputs, kernel, recurrent_kernel, bias))
    mask = None if mask is None else jnp.asarray(mask)
    if initial_state is not None:
        h, c = initial_state
        initial_state = floating(h), floating(c)
    input_scale = None if input_scale is None else floating(input_scale)
    return inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale


def _check_shapes(
    inputs, kernel, recurrent_kernel, bias, mask, initial_state, input_scale, *, directions=()
) -> None:
    if inputs.ndim != 3:
        raise ValueError(f"inputs: expected [batch, time, features], got shape {inputs.shape}")
    batch, time, features = inputs.shape
    hidden = recurrent_kernel.shape[-2] if recurrent_kernel.ndim > 1 else "hidden"
    gates = 4 * hidden if recurrent_kernel.ndim > 1 else "4*hidden"
    expected = {
        "kernel": (kernel, (*directions, features, gates)),
        "recurrent_kernel": (recurrent_kernel, (*directions, hidden, gates)),
        "bias": (bias, (*directions, gates)),
    }
    if mask is not None:
        expected["mask"] = (mask, (batch, time))
        if mask.dtype != jnp.bool_:
            raise ValueError(f"mask: expected bool (True = real step), got {mask.dtype}")
    if initial_state is not None:
        h, c = initial_state
        expected["initial_state h"] = (h, (*directions, batch, hidden))
        expected["initial_state c"] = (c, (*directions, batch, hidden))
    if input_scale is not None:
        expected["input_scale"] = (input_scale, (*directions, batch, features))
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


class LSTM(nnx.Module):
    """One LSTM layer in one direction.

    The initial weights are those of Keras: `kernel` [in, 4*hidden] Glorot-uniform, `recurrent_kernel`
    [hidden, 4*hidden] orthogonal, `bias` [4*hidden] zero, and 1 for the forget gate (Jozefowicz et al.
    2015).

    Args:
      in_features, hidden_features: sizes.
      reverse: run from the last step to the first.
      dropout: as in Keras's `LSTM(dropout=...)`, the rate of one mask over the input features per
        sequence, shared by all time steps (Gal and Ghahramani 2016, arXiv 1512.05287). `model.train()`
        switches it on, `model.eval()` off.
      dtype, implementation, chunk_size: see `lstm`.
      rngs: streams `params` and `dropout`.

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
        chunk_size: int = 0,
        rngs: nnx.Rngs,
    ):
        self.reverse = reverse
        self.dtype = dtype
        self.implementation = implementation
        self.chunk_size = chunk_size
        gates = 4 * hidden_features
        glorot, orthogonal = nnx.initializers.glorot_uniform(), nnx.initializers.orthogonal()
        self.kernel = nnx.Param(glorot(rngs.params(), (in_features, gates)))
        self.recurrent_kernel = nnx.Param(orthogonal(rngs.params(), (hidden_features, gates)))
        forget = jnp.arange(gates) // hidden_features == 1
        self.bias = nnx.Param(forget.astype(jnp.float32))
        # Without dropout a layer holds no random state.
        self.dropout = nnx.Dropout(dropout, rngs=rngs if dropout else None)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"],
        mask: Bool[Array, "batch time"] | None = None,
        initial_state: State | None = None,
    ) -> tuple[Float[Array, "batch time hidden"], State]:
        """Runs the layer; see `lstm` for arguments and results."""
        inputs = floating(inputs)
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
            chunk_size=self.chunk_size,
        )

    def dropout_mask(
        self, inputs: Float[Array, "batch time in"]
    ) -> Float[Array, "batch in"] | None:
        """Draws the factor of each input feature: 0 or 1 / (1 - rate). Returns None without dropout."""
        if self.dropout.deterministic or self.dropout.rate == 0:
            return None
        return self.dropout(jnp.ones((inputs.shape[0], inputs.shape[2]), inputs.dtype))


class BiLSTM(nnx.Module):
    """Two LSTM layers over the same inputs, one from each end (Schuster and Paliwal 1997).

    Each direction draws its own dropout mask, as in Keras's `Bidirectional`. See `LSTM` for the arguments.

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
        chunk_size: int = 0,
        rngs: nnx.Rngs,
    ):
        layer = partial(
            LSTM,
            in_features,
            hidden_features,
            dropout=dropout,
            dtype=dtype,
            implementation=implementation,
            chunk_size=chunk_size,
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
          mask: [batch, time] bool, True where a step is real, in any pattern. None: all steps are real.
          initial_state: (h, c), each [batch, 2*hidden]: forward features, then backward features.

        Returns:
          outputs [batch, time, 2*hidden], forward features first, 0 where masked, and (h, c), each
          [batch, 2*hidden]: the forward direction's state after the last real step, and the backward
          direction's state after the first.
        """
        inputs = floating(inputs)
        directions = (self.forward, self.backward)

        def both(name: str) -> Array:
            return jnp.stack([getattr(direction, name)[...] for direction in directions])

        if initial_state is not None:  # [batch, 2*hidden] -> [2, batch, hidden]
            h, c = (jnp.stack(jnp.split(x, 2, axis=-1)) for x in initial_state)
            initial_state = h, c
        scales = [s for s in (d.dropout_mask(inputs) for d in directions) if s is not None]
        outputs, state = bilstm(
            inputs,
            both("kernel"),
            both("recurrent_kernel"),
            both("bias"),
            mask=mask,
            initial_state=initial_state,
            input_scale=jnp.stack(scales) if scales else None,
            dtype=self.forward.dtype,
            implementation=self.forward.implementation,
            chunk_size=self.forward.chunk_size,
        )
        h, c = (jnp.concatenate([x[0], x[1]], axis=-1) for x in state)
        return outputs, (h, c)
