"""Masks: checks of their shapes, and masks from lengths. True is a real position, here as everywhere."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int


def check_mask(name: str, mask: Array, *shapes: tuple) -> None:
    """Raises a ValueError unless the mask is boolean and has one of these shapes."""
    if mask.shape not in shapes or mask.dtype != jnp.bool_:
        expected = " or ".join(map(str, shapes))
        raise ValueError(
            f"{name}: expected bool {expected}, True = real, got {mask.dtype} {mask.shape}"
        )


def mask_of(
    mask: Bool[ArrayLike, "batch time"] | None,
    lengths: Int[ArrayLike, "batch"] | None,
    batch: int,
    time: int,
) -> Bool[Array, "batch time"] | None:
    """Returns the mask that a caller describes by `mask` or by `lengths`. None: every position is real.

    Raises:
      ValueError: both are given, or one has another shape or dtype.

    Example:
      >>> mask_of(None, [2, 0], 2, 3).tolist()
      [[True, True, False], [False, False, False]]
    """
    if lengths is not None:
        if mask is not None:
            raise ValueError("mask, lengths: expected one of them, got both")
        lengths = jnp.asarray(lengths)
        if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
            found = f"{lengths.dtype} {lengths.shape}"
            raise ValueError(f"lengths: expected integers {(batch,)}, got {found}")
        return jnp.arange(time)[None, :] < lengths.astype(jnp.int32)[:, None]
    if mask is None:
        return None
    mask = jnp.asarray(mask)
    check_mask("mask", mask, (batch, time))
    return mask
