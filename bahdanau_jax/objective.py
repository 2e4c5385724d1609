"""Loss and metrics; metrics travel as (sum, count) and are divided once: padded rows never count."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

AnyArray = jax.Array | np.ndarray
Labels = Int[AnyArray, "batch"] | Float[AnyArray, "batch"]


class Metrics(NamedTuple):
    """Sums over examples, not means: those of several batches, devices or processes just add up."""

    loss_sum: Float[AnyArray, ""] | float
    correct: Float[AnyArray, ""] | float
    count: Float[AnyArray, ""] | float


def per_example_loss(
    logits: Float[AnyArray, "batch outputs"], labels: Labels
) -> Float[Array, "batch"]:
    """Cross-entropy in nats of each example: of a sigmoid for one logit, of a softmax for more.

    A sigmoid's label may be soft: the probability of class 1.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(per_example_loss(jnp.zeros((1, 1)), jnp.array([1]))[0]), 4)
      0.6931
    """
    if logits.shape[-1] == 1:
        return jnp.asarray(optax.sigmoid_binary_cross_entropy(logits[:, 0], labels))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def class_weights(counts: Int[np.ndarray, "classes"]) -> tuple[float, ...]:
    """What each example's loss is multiplied by so that all classes weigh the same: n / (classes * count).

    The mean over the examples is 1; a class without one gets 0.

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
    """The sum over the real rows of each one's loss times its class's weight."""
    losses = per_example_loss(logits, labels) * jnp.asarray(weights)[labels]
    return jnp.sum(jnp.where(real, losses, 0))


def probabilities(logits: Float[AnyArray, "batch outputs"]) -> Float[Array, "batch classes"]:
    """The probability of each class; one logit is that of class 1."""
    if logits.shape[-1] == 1:
        positive = jax.nn.sigmoid(logits)
        return jnp.concatenate([1 - positive, positive], axis=-1)
    return jax.nn.softmax(logits, axis=-1)


def predicted_class(logits: Float[AnyArray, "batch outputs"]) -> Int[AnyArray, "batch"]:
    """The likeliest class; a sigmoid of exactly 0.5 is class 0, as under Keras."""
    if logits.shape[-1] == 1:
        return (logits[:, 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1)


def loss_and_metrics(
    logits: Float[AnyArray, "batch outputs"],
    labels: Labels,
    real: Bool[AnyArray, "batch"],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean loss over the real rows, and the sums behind it. `real` is False for rows that only fill a batch."""
    losses = jnp.where(real, per_example_loss(logits, labels), 0)
    # Of a soft label, the likelier class.
    classes = labels > 0.5 if jnp.issubdtype(labels.dtype, jnp.floating) else labels
    correct = jnp.where(real, predicted_class(logits) == classes, False)
    count = jnp.sum(real, dtype=jnp.float32)
    metrics = Metrics(jnp.sum(losses), jnp.sum(correct, dtype=jnp.float32), count)
    return jnp.sum(losses) / jnp.maximum(count, 1), metrics
