"""The dtype that a layer computes in, and the precision of its products."""

import jax
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


def takes_tf32() -> bool:
    """Returns whether JAX rounds the factors of float32 products to TF32 on an NVIDIA GPU.

    It does, unless `jax.default_matmul_precision("highest")` or `"float32"` asks for more.

    Example:
      >>> import jax
      >>> with jax.default_matmul_precision("highest"):
      ...     takes_tf32()
      False
    """
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return str(precision).lower() not in ("highest", "float32", "f32_f32_f32")
