"""What the implementations of an LSTM layer share: its arguments and its settings."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


class Arguments(NamedTuple):
    """The arrays of a layer that runs in one direction, or in two over the same inputs.

    Inputs, their scale and weights have the layer's `dtype`; bias, state and its scale have its `carry_dtype`.
    `resets` is True where the state becomes zero before a step, in the order in which the direction walks.
    """

    inputs: Float[Array, "batch time features"]
    mask: Bool[Array, "batch time"] | None
    input_scale: Float[Array, "directions batch features"] | None
    kernel: Float[Array, "directions features 4*hidden"]
    recurrent_kernel: Float[Array, "directions hidden 4*hidden"]
    bias: Float[Array, "directions 4*hidden"]
    h: Float[Array, "directions batch hidden"]
    c: Float[Array, "directions batch hidden"]
    recurrent_scale: Float[Array, "directions batch hidden"] | None = None
    resets: Bool[Array, "directions batch time"] | None = None

    @property
    def differentiable(self) -> tuple[Array, ...]:
        """The arrays that get a gradient: all but the masks and the scales."""
        return (self.inputs, *self[3:8])


class Layer(NamedTuple):
    """How a layer computes.

    Attributes:
      reverse: run the first direction from the last step to the first; the second runs the other way.
      dtype: dtype of the matrix products and of the outputs.
      platforms: pairs of a platform ("cpu", "cuda") and an implementation. The first that runs is used.
      others: the implementation of all other platforms: "scan", or None to refuse them.
    """

    reverse: bool
    dtype: np.dtype
    platforms: tuple[tuple[str, str], ...] = ()
    others: str | None = "scan"

    def __repr__(self) -> str:  # shown in jaxprs
        chosen = [f"{platform}={name} (ffi_call)" for platform, name in self.platforms]
        return f"Layer({', '.join([*chosen, f'others={self.others}', f'reverse={self.reverse}'])})"

    @property
    def carry_dtype(self) -> np.dtype:
        """Dtype of the state and the gates: float32 or wider."""
        return jnp.promote_types(self.dtype, jnp.float32)

    def backwards(self, direction: int) -> bool:
        """Returns whether this direction runs from the last step to the first."""
        return self.reverse != (direction == 1)
