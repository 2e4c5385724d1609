"""The dtype that a layer computes in."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def floating(x: ArrayLike) -> Array:
    """Converts `x` to a JAX array of a floating dtype.

    NumPy's float64 becomes float32 unless `jax_enable_x64` is set; integers and booleans become float32.

    Raises:
      ValueError: the numbers are complex.

    Example:
      >>> import numpy as np
      >>> floating(np.array([1, 2])).dtype
      dtype('float32')
    """
    array = jnp.asarray(x)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"expected real numbers, got {array.dtype}")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)
