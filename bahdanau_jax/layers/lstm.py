"""`LSTM` and `BiLSTM`, the layers with their weights. lstm_functions.py has the functions without weights."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers.dropout import SequenceDropout
from bahdanau_jax.layers.dtypes import floating
from bahdanau_jax.layers.lstm_functions import State, bilstm, lstm, lstm_step

GLOROT, ORTHOGONAL = nnx.initializers.glorot_uniform(), nnx.initializers.orthogonal()


class LSTM(SequenceDropout):
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
      recurrent_dropout: as in Keras, the rate of one mask over h per sequence, before the recurrent product.
        Only the scan computes it.
      dtype, implementation, chunk_size: see `lstm`.
      kernel_init, recurrent_kernel_init, bias_init: initializers of the weights. None for `bias_init`: zeros,
        and 1 for the forget gate.
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
        recurrent_dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        implementation: str = "auto",
        chunk_size: int = 0,
        kernel_init: Initializer = GLOROT,
        recurrent_kernel_init: Initializer = ORTHOGONAL,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.reverse = reverse
        self.dtype = dtype
        self.implementation = implementation
        self.chunk_size = chunk_size
        gates = 4 * hidden_features
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, gates)))
        recurrent_kernel = recurrent_kernel_init(rngs.params(), (hidden_features, gates))
        self.recurrent_kernel = nnx.Param(recurrent_kernel)
        if bias_init is None:
            bias = (jnp.arange(gates) // hidden_features == 1).astype(jnp.float32)
        else:
            bias = bias_init(rngs.params(), (gates,))
        self.bias = nnx.Param(bias)
        super().__init__(dropout, recurrent_dropout, rngs)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"],
        mask: Bool[Array, "batch time"] | None = None,
        initial_state: State | None = None,
        *,
        lengths: Int[Array, "batch"] | None = None,
        resets: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Float[Array, "batch time hidden"], State]:
        """Runs the layer; see `lstm` for arguments and results."""
        inputs = floating(inputs)
        return lstm(
            inputs,
            self.kernel[...],
            self.recurrent_kernel[...],
            self.bias[...],
            mask=mask,
            lengths=lengths,
            resets=resets,
            initial_state=initial_state,
            input_scale=self.dropout_mask(inputs),
            recurrent_scale=self.recurrent_dropout_mask(inputs),
            reverse=self.reverse,
            dtype=self.dtype,
            implementation=self.implementation,
            chunk_size=self.chunk_size,
        )

    def step(
        self,
        carry: State,
        inputs: Float[Array, "batch in"],
        mask: Bool[Array, "batch"] | None = None,
        *,
        input_scale: Float[Array, "batch in"] | None = None,
        recurrent_scale: Float[Array, "batch hidden"] | None = None,
    ) -> tuple[State, Float[Array, "batch hidden"]]:
        """Runs one step; see `lstm_step` for arguments and results. `initial_state` makes the first carry.

        A step draws no dropout, which has one mask per sequence. Draw the masks once, by `dropout_mask` and
        `recurrent_dropout_mask`, and pass them to each step.

        Raises:
          ValueError: as `lstm_step`. Also in training mode if the layer has dropout and its mask is missing.

        Example:
          >>> import jax
          >>> import jax.numpy as jnp
          >>> from flax import nnx
          >>> layer = LSTM(in_features=8, hidden_features=4, rngs=nnx.Rngs(0))
          >>> inputs = jnp.ones((5, 2, 8))  # [time, batch, in]
          >>> (h, c), outputs = jax.lax.scan(layer.step, layer.initial_state(2), inputs)
          >>> outputs.shape
          (5, 2, 4)
        """
        self.check_masks(input_scale, recurrent_scale)
        return lstm_step(
            carry,
            inputs,
            self.kernel[...],
            self.recurrent_kernel[...],
            self.bias[...],
            mask=mask,
            input_scale=input_scale,
            recurrent_scale=recurrent_scale,
            dtype=self.dtype,
        )

    def initial_state(self, batch: int) -> State:
        """Returns (h, c) of zeros, each float32 [batch, hidden]."""
        zeros = jnp.zeros((batch, self.recurrent_kernel.shape[0]))
        return zeros, zeros


class BiLSTM(nnx.Module):
    """Two LSTM layers over the same inputs, one from each end (Schuster and Paliwal 1997).

    Each direction draws its own dropout masks, as in Keras's `Bidirectional`. See `LSTM` for the arguments.

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
        recurrent_dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        implementation: str = "auto",
        chunk_size: int = 0,
        kernel_init: Initializer = GLOROT,
        recurrent_kernel_init: Initializer = ORTHOGONAL,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        layer = partial(
            LSTM,
            in_features,
            hidden_features,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            dtype=dtype,
            implementation=implementation,
            chunk_size=chunk_size,
            kernel_init=kernel_init,
            recurrent_kernel_init=recurrent_kernel_init,
            bias_init=bias_init,
            rngs=rngs,
        )
        self.forward = layer()
        self.backward = layer(reverse=True)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"],
        mask: Bool[Array, "batch time"] | None = None,
        initial_state: State | None = None,
        *,
        lengths: Int[Array, "batch"] | None = None,
        resets: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Float[Array, "batch time 2*hidden"], State]:
        """Runs both directions.

        Args:
          inputs: [batch, time, in_features].
          mask: [batch, time] bool, True where a step is real, in any pattern. None: all steps are real.
          initial_state: (h, c), each [batch, 2*hidden]: forward features, then backward features.
          lengths: [batch], instead of `mask`: the number of real steps of each row, which come first.
          resets: [batch, time] bool, True where a new sequence starts; see `lstm`.

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
        scales, recurrent_scales = (
            [mask for mask in masks if mask is not None]
            for masks in (
                [d.dropout_mask(inputs) for d in directions],
                [d.recurrent_dropout_mask(inputs) for d in directions],
            )
        )
        outputs, state = bilstm(
            inputs,
            both("kernel"),
            both("recurrent_kernel"),
            both("bias"),
            mask=mask,
            lengths=lengths,
            resets=resets,
            initial_state=initial_state,
            input_scale=jnp.stack(scales) if scales else None,
            recurrent_scale=jnp.stack(recurrent_scales) if recurrent_scales else None,
            dtype=self.forward.dtype,
            implementation=self.forward.implementation,
            chunk_size=self.forward.chunk_size,
        )
        h, c = (jnp.concatenate([x[0], x[1]], axis=-1) for x in state)
        return outputs, (h, c)
