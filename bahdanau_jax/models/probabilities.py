"""From logits to probabilities and classes: one logit belongs to a sigmoid, several to a softmax."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

AnyArray = jax.Array | np.ndarray


def probabilities(logits: Float[AnyArray, "batch outputs"]) -> Float[Array, "batch classes"]:
    """The probability of each class. A single logit is that of class 1."""
    if logits.shape[-1] == 1:
        positive = jax.nn.sigmoid(logits)
        return jnp.concatenate([1 - positive, positive], axis=-1)
    return jax.nn.softmax(logits, axis=-1)


def predicted_class(logits: Float[AnyArray, "batch outputs"]) -> Int[AnyArray, "batch"]:
    """The likeliest class; a sigmoid of exactly 0.5 is class 0, as under Keras."""
    if logits.shape[-1] == 1:
        return (logits[:, 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1)
