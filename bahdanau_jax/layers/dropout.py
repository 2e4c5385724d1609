"""Dropout with one mask for all steps of a sequence (Gal and Ghahramani 2016, arXiv 1512.05287)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class SequenceDropout(nnx.Module):
    """The dropout of `LSTM` and `GRU`: a mask over the input features, and one over h."""

    recurrent_kernel: nnx.Param

    def __init__(self, dropout: float, recurrent_dropout: float, rngs: nnx.Rngs):
        # Without dropout a layer holds no random state.
        self.dropout, self.recurrent_dropout = (
            nnx.Dropout(rate, rngs=rngs if rate else None) for rate in (dropout, recurrent_dropout)
        )

    def dropout_mask(self, inputs: Float[Array, "batch ... in"]) -> Float[Array, "batch in"] | None:
        """Draws the factor of each input feature: 0 or 1 / (1 - rate). Returns None without dropout."""
        return _draw(self.dropout, inputs, inputs.shape[-1])

    def recurrent_dropout_mask(
        self, inputs: Float[Array, "batch ... in"]
    ) -> Float[Array, "batch hidden"] | None:
        """Draws the factor of each hidden unit in the same way."""
        return _draw(self.recurrent_dropout, inputs, self.recurrent_kernel.shape[0])

    def check_masks(self, input_scale, recurrent_scale) -> None:
        """Raises a ValueError if the layer runs a single step, has dropout and lacks the sequence's mask."""
        for dropout, name, scale in (
            (self.dropout, "input_scale", input_scale),
            (self.recurrent_dropout, "recurrent_scale", recurrent_scale),
        ):
            if scale is None and dropout.rate and not dropout.deterministic:
                raise ValueError(f"{name}: expected the sequence's dropout mask, got None")


def _draw(dropout: nnx.Dropout, inputs, features: int) -> Array | None:
    if dropout.deterministic or dropout.rate == 0:
        return None
    return dropout(jnp.ones((inputs.shape[0], features), inputs.dtype))
