"""Loss and accuracy. Metrics hold sums, so that those of several batches or devices just add up."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.data.dataset import Examples
from bahdanau_jax.evaluation.significance import bootstrap_interval
from bahdanau_jax.models.probabilities import AnyArray, predicted_class


class Metrics(NamedTuple):
    """Sums over examples, not means."""

    loss_sum: Float[AnyArray, ""] | float  # nats
    correct: Float[AnyArray, ""] | float
    count: Float[AnyArray, ""] | float


def per_example_loss(
    logits: Float[AnyArray, "batch outputs"], labels: Int[AnyArray, "batch"]
) -> Float[Array, "batch"]:
    """Returns each example's cross-entropy in nats: of a sigmoid for one logit, else of a softmax.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(per_example_loss(jnp.zeros((1, 1)), jnp.array([1]))[0]), 4)
      0.6931
    """
    if logits.shape[-1] == 1:
        return jnp.asarray(optax.sigmoid_binary_cross_entropy(logits[:, 0], labels))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def loss_and_metrics(
    logits: Float[AnyArray, "batch outputs"],
    labels: Int[AnyArray, "batch"],
    real: Bool[AnyArray, "batch"],
) -> tuple[Float[Array, ""], Metrics]:
    """Returns the mean loss over the real rows, and the sums behind it.

    Args:
      logits: one for two classes, otherwise one for each class.
      labels: the true classes.
      real: False for rows that only fill a batch.

    Example:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.array([[2.0], [2.0], [0.0]]), jnp.array([1, 0, 0])
      >>> loss, metrics = loss_and_metrics(logits, labels, jnp.array([True, True, False]))
      >>> round(float(loss), 3), float(metrics.correct), float(metrics.count)
      (1.127, 1.0, 2.0)
    """
    losses = jnp.where(real, per_example_loss(logits, labels), 0)
    correct = jnp.where(real, predicted_class(logits) == labels, False)
    count = jnp.sum(real, dtype=jnp.float32)
    metrics = Metrics(jnp.sum(losses), jnp.sum(correct, dtype=jnp.float32), count)
    return jnp.sum(losses) / jnp.maximum(count, 1), metrics


def add_up(metrics: Iterable[Metrics]) -> Metrics:
    """Adds the sums of several steps, in float64.

    Example:
      >>> add_up([Metrics(1.5, 2, 3), Metrics(0.5, 1, 1)])
      Metrics(loss_sum=2.0, correct=3.0, count=4.0)
    """
    return Metrics(*map(float, np.array(list(metrics), np.float64).sum(axis=0)))


def mean_of(metrics: Metrics) -> dict[str, float]:
    """Divides the sums by their count; without examples both means are NaN.

    Example:
      >>> mean_of(Metrics(2.0, 3, 4))
      {'loss': 0.5, 'accuracy': 0.75}
    """
    loss_sum, correct, count = (float(x) for x in metrics)
    count = count or math.nan
    return {"loss": loss_sum / count, "accuracy": correct / count}


def figures_of(logits: Float[np.ndarray, "n outputs"], examples: Examples) -> dict[str, Any]:
    """Returns {"loss", "accuracy", "n"} of a whole split."""
    n = len(examples)
    metrics = jax.jit(loss_and_metrics)(logits, examples.labels, np.ones(n, bool))[1]
    return mean_of(metrics) | {"n": n}


def figures_with_interval(
    logits: Float[np.ndarray, "n outputs"], examples: Examples
) -> dict[str, Any]:
    """Returns `figures_of` and, as "interval", the accuracy's 95% bootstrap interval over the reviews."""
    correct = np.asarray(predicted_class(logits)) == examples.labels
    return figures_of(logits, examples) | {"interval": list(bootstrap_interval(correct))}


def figures_of_splits(
    logits: Mapping[str, np.ndarray], examples: Mapping[str, Examples]
) -> dict[str, dict[str, Any]]:
    """Returns the figures of each split, with an interval except for train, which the model has seen."""
    return {
        split: (figures_of if split == "train" else figures_with_interval)(found, examples[split])
        for split, found in logits.items()
    }
