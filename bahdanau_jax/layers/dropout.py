"""Dropout with one mask for all steps of a sequence (Gal and Ghahramani 2016, arXiv 1512.05287)."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def draw_mask(
    dropout: nnx.Dropout, shape: tuple[int, int], dtype: DTypeLike
) -> Float[Array, "batch features"] | None:
    """Draws factors of 0 or 1 / (1 - rate). Returns None where dropout is off."""
    return None if dropout.deterministic or dropout.rate == 0 else dropout(jnp.ones(shape, dtype))


def check_dropout_masks(layer, input_scale, recurrent_scale) -> None:
    """Raises a ValueError if a layer that runs a single step has dropout and lacks the sequence's mask."""
    for dropout, name, scale in (
        (layer.dropout, "input_scale", input_scale),
        (layer.recurrent_dropout, "recurrent_scale", recurrent_scale),
    ):
        if scale is None and dropout.rate and not dropout.deterministic:
            raise ValueError(f"{name}: expected the sequence's dropout mask, got None")
