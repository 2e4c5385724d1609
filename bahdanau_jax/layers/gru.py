"""GRU layers over masked sequences: `GRU` and `BiGRU`. gru_functions.py has the functions without weights."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers.dropout import SequenceDropout
from bahdanau_jax.layers.dtypes import floating
from bahdanau_jax.layers.gru_functions import gru, gru_step
from bahdanau_jax.layers.lstm import GLOROT, ORTHOGONAL


class GRU(SequenceDropout):
    """One GRU layer in one direction.

    The initial weights are those of Keras: `kernel` [in, 3*hidden] Glorot-uniform, `recurrent_kernel`
    [hidden, 3*hidden] orthogonal, biases zero.

    Args:
      in_features, hidden_features: sizes.
      reverse: run from the last step to the first.
      reset_after: the variant, see `gru`. With it the layer has a `recurrent_bias` [hidden].
      dropout, recurrent_dropout: as in `LSTM`, the rate of one mask per sequence over the input features, and
        over h before the recurrent products. `model.train()` switches them on, `model.eval()` off.
      dtype: see `gru`.
      kernel_init, recurrent_kernel_init, bias_init: initializers of the weights; `bias_init` also of
        `recurrent_bias`.
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
        recurrent_dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        kernel_init: Initializer = GLOROT,
        recurrent_kernel_init: Initializer = ORTHOGONAL,
        bias_init: Initializer = nnx.initializers.zeros,
        rngs: nnx.Rngs,
    ):
        self.reverse, self.reset_after, self.dtype = reverse, reset_after, dtype
        gates = 3 * hidden_features
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, gates)))
        recurrent_kernel = recurrent_kernel_init(rngs.params(), (hidden_features, gates))
        self.recurrent_kernel = nnx.Param(recurrent_kernel)
        self.bias = nnx.Param(bias_init(rngs.params(), (gates,)))
        recurrent_bias = bias_init(rngs.params(), (hidden_features,)) if reset_after else None
        self.recurrent_bias = None if recurrent_bias is None else nnx.Param(recurrent_bias)
        super().__init__(dropout, recurrent_dropout, rngs)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"],
        mask: Bool[Array, "batch time"] | None = None,
        initial_state: Float[Array, "batch hidden"] | None = None,
        *,
        lengths: Int[Array, "batch"] | None = None,
        resets: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Float[Array, "batch time hidden"], Float[Array, "batch hidden"]]:
        """Runs the layer; see `gru` for arguments and results."""
        inputs = floating(inputs)
        return gru(
            inputs,
            self.kernel[...],
            self.recurrent_kernel[...],
            self.bias[...],
            None if self.recurrent_bias is None else self.recurrent_bias[...],
            mask=mask,
            lengths=lengths,
            initial_state=initial_state,
            resets=resets,
            input_scale=self.dropout_mask(inputs),
            recurrent_scale=self.recurrent_dropout_mask(inputs),
            reverse=self.reverse,
            reset_after=self.reset_after,
            dtype=self.dtype,
        )

    def step(
        self,
        carry: Float[Array, "batch hidden"],
        inputs: Float[Array, "batch in"],
        mask: Bool[Array, "batch"] | None = None,
        *,
        input_scale: Float[Array, "batch in"] | None = None,
        recurrent_scale: Float[Array, "batch hidden"] | None = None,
    ) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]:
        """Runs one step; returns the new carry and the output. `initial_state` makes the first carry.

        Dropout is as in `LSTM.step`.

        Raises:
          ValueError: as `gru`. Also in training mode if the layer has dropout and its mask is missing.
        """
        self.check_masks(input_scale, recurrent_scale)
        return gru_step(
            carry,
            inputs,
            self.kernel[...],
            self.recurrent_kernel[...],
            self.bias[...],
            None if self.recurrent_bias is None else self.recurrent_bias[...],
            mask=mask,
            input_scale=input_scale,
            recurrent_scale=recurrent_scale,
            reset_after=self.reset_after,
            dtype=self.dtype,
        )

    def initial_state(self, batch: int) -> Float[Array, "batch hidden"]:
        """Returns h of zeros, float32 [batch, hidden]."""
        return jnp.zeros((batch, self.recurrent_kernel.shape[0]))


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
        recurrent_dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        kernel_init: Initializer = GLOROT,
        recurrent_kernel_init: Initializer = ORTHOGONAL,
        bias_init: Initializer = nnx.initializers.zeros,
        rngs: nnx.Rngs,
    ):
        layer = partial(
            GRU,
            in_features,
            hidden_features,
            reset_after=reset_after,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            dtype=dtype,
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
        initial_state: Float[Array, "batch 2*hidden"] | None = None,
        *,
        lengths: Int[Array, "batch"] | None = None,
        resets: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Float[Array, "batch time 2*hidden"], Float[Array, "batch 2*hidden"]]:
        """Runs both directions; arguments and results as `BiLSTM`'s, with h alone as the state."""
        halves = (None, None) if initial_state is None else jnp.split(initial_state, 2, axis=-1)
        outputs, states = zip(
            self.forward(inputs, mask, halves[0], lengths=lengths, resets=resets),
            self.backward(inputs, mask, halves[1], lengths=lengths, resets=resets),
            strict=True,
        )
        return jnp.concatenate(outputs, axis=-1), jnp.concatenate(states, axis=-1)
