"""Masks, where True is a real position: checks of their shapes, masks from lengths; and resets."""

import jax
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


def resets_of(
    resets: Bool[Array, "batch time"], mask: Bool[Array, "batch time"] | None, backwards: bool
) -> Bool[Array, "batch time"]:
    """Where the state becomes zero before a step, in the order in which a direction walks.

    Forwards, this is where a sequence starts. Backwards, it is the last real step of a sequence: the one
    before the real step at which the next sequence starts.
    """
    if mask is not None:
        resets = resets & mask
    if not backwards:
        return resets
    batch, time = resets.shape
    # [batch, time + 1], the first real step at or after each; `time`: none
    steps = jnp.broadcast_to(jnp.arange(time)[None], (batch, time))
    steps = steps if mask is None else jnp.where(mask, steps, time)
    following = jax.lax.cummin(
        jnp.pad(steps, ((0, 0), (0, 1)), constant_values=time), 1, reverse=True
    )
    starts = jnp.pad(resets, ((0, 0), (0, 1)))
    before_start = jnp.take_along_axis(starts, following[:, 1:], axis=1)
    return before_start if mask is None else before_start & mask
