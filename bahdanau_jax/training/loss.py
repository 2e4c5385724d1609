"""Training losses beyond cross-entropy with a label: of classes that weigh differently, of a teacher."""

import jax
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


def cross_entropy(
    targets: Float[Array, "batch outputs"], logits: Float[Array, "batch outputs"]
) -> Float[Array, "batch"]:
    """The cross-entropy in nats of each row with the probabilities of `targets`, which are logits, too.

    Example:
      >>> sure, unsure = jnp.array([[100.0]]), jnp.array([[0.0]])
      >>> [round(cross_entropy(sure, logits).item(), 4) for logits in (-sure, unsure)]
      [100.0, 0.6931]
    """
    targets, logits = two_columns(targets), two_columns(logits)
    return -jnp.sum(jax.nn.softmax(targets) * jax.nn.log_softmax(logits), axis=-1)


def two_columns(logits: Float[Array, "batch outputs"]) -> Float[Array, "batch classes"]:
    """One logit for each class, where one stands for two."""
    if logits.shape[-1] > 1:
        return logits
    return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
