"""The training loss beyond plain cross-entropy: classes that weigh differently."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.evaluation.metrics import per_example_loss
from bahdanau_jax.models.probabilities import AnyArray


def class_weights(counts: Int[np.ndarray, "classes"]) -> tuple[float, ...]:
    """A factor for each class's loss, with which all classes count the same: n / (classes * count).

    The mean factor over the examples is 1. A class without examples gets 0.

    Example:
      >>> class_weights(np.array([9, 3]))
      (0.6666666666666666, 2.0)
    """
    n, present = counts.sum(), np.count_nonzero(counts)
    return tuple((n / present / np.maximum(counts, 1) * (counts > 0)).tolist())


def weighted_loss_sum(
    logits: Float[AnyArray, "batch outputs"],
    labels: Int[AnyArray, "batch"],
    real: Bool[AnyArray, "batch"],
    weights: Float[AnyArray, "classes"],
) -> Float[Array, ""]:
    """The sum of the real rows' losses, each times the weight of its class."""
    losses = per_example_loss(logits, labels) * jnp.asarray(weights)[labels]
    return jnp.sum(jnp.where(real, losses, 0))
