"""Adversarial and virtual adversarial training on word vectors.

Miyato, Dai and Goodfellow (2017), "Adversarial Training Methods for Semi-Supervised Text Classification",
arXiv 1605.07725. Each text is read twice. The second time its word vectors are shifted in the direction that
hurts most: that which raises the loss of its label, or, for a text without a label, that which changes its
prediction. Both readings draw the same dropout.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bahdanau_jax.data.batches import Batch
from bahdanau_jax.evaluation.metrics import loss_and_metrics

# `logits, rest = forward(params, rest, ids, shift)`, with `shift` added to the word vectors.
Forward = Callable[[Any, Any, Array, Array], tuple[Array, Any]]
_TINY = 1e-30


class Norms(NamedTuple):
    """L2 norms of the shift over all of a text's word vectors.

    Attributes:
      labelled: of a text with a label, whose loss it raises. 0: no such shift.
      virtual: of a text without a label (with `labelled` 0, of every text). 0: no such shift.
    """

    labelled: float = 0.0
    virtual: float = 0.0


NO_SHIFTS = Norms()


def labelled_rows(batch: Batch) -> Bool[Array, "batch"]:
    """The rows that have a label: it is not -1, and they are not fillers."""
    return batch.real & (batch.labels >= 0)


def virtual_rows(batch: Batch, norms: Norms) -> Bool[Array, "batch"]:
    """The rows that take a virtual shift."""
    return batch.real & ~labelled_rows(batch) if norms.labelled else batch.real


def gradients(
    forward: Forward,
    loss_sum: Callable[[Array, Batch], Array],
    params: Any,
    rest: Any,
    part: Batch,
    *,
    shift: Float[Array, "batch time features"],
    norms: Norms,
    counts: tuple[Array, Array],
    key: Array,
) -> tuple[Any, tuple[Any, Any]]:
    """Gradients of the mean loss as it is, plus the mean losses of shifted texts.

    Args:
      loss_sum: the sum of the losses of a part's labelled rows.
      rest: state of the model that is not trained, with the streams of dropout.
      part: rows without a label have the label -1.
      shift: zeros of the word vectors' shape and dtype.
      counts: labelled rows of the whole batch, and rows that take a virtual shift; at least 1 each.
      key: of the virtual direction.

    Returns:
      gradients, (metrics of the labelled rows as they are, `rest` after the first reading).
    """
    virtual = virtual_rows(part, norms)
    read = lambda params, shift: forward(params, rest, part.ids, shift)  # noqa: E731
    logits, pull, after = jax.vjp(read, params, shift, has_aux=True)
    loss_of = lambda logits: loss_sum(logits, part) / counts[0]  # noqa: E731
    grads, direction = pull(jax.grad(loss_of)(logits))
    if norms.virtual:
        _, away = pull(toward_doubt(key, logits))
        direction = jnp.where(virtual[:, None, None], away, direction)
    lengths = jnp.where(virtual, norms.virtual, norms.labelled).astype(jnp.float32)
    shift = jax.lax.stop_gradient(_of_norm(lengths, direction)).astype(shift.dtype)

    def shifted_loss(params):
        shifted, _ = read(params, shift)
        loss = loss_of(shifted) if norms.labelled else jnp.zeros(())
        apart = jnp.where(virtual, divergence(jax.lax.stop_gradient(logits), shifted), 0)
        return loss + jnp.sum(apart) / counts[1]

    grads = jax.tree.map(jnp.add, grads, jax.grad(shifted_loss)(params))
    return grads, (loss_and_metrics(logits, part.labels, labelled_rows(part))[1], after)


def divergence(
    logits: Float[Array, "batch outputs"], shifted: Float[Array, "batch outputs"]
) -> Float[Array, "batch"]:
    """The Kullback-Leibler divergence of the shifted prediction from the first one, in nats.

    Example:
      >>> round(float(divergence(jnp.array([[0.0]]), jnp.array([[2.0]]))[0]), 4)
      0.4338
    """
    before, after = (jax.nn.log_softmax(_for_each_class(x)) for x in (logits, shifted))
    return jnp.sum(jnp.exp(before) * (before - after), axis=-1)


def toward_doubt(
    key: Array, logits: Float[Array, "batch outputs"]
) -> Float[Array, "batch outputs"]:
    """A cotangent of the logits along which the divergence grows.

    For a small shift d the divergence is d' J' F J d / 2, with the logits' Jacobian J and the Fisher matrix
    F = diag(p) - p p' of the softmax. The paper finds its largest eigenvector by power iteration from a
    random d. J' F z with a random z lies in the same space, of as many dimensions as there are classes, less
    one. So for two classes it is that eigenvector, exactly, with a random sign.
    """
    z = jax.random.normal(key, logits.shape, logits.dtype)
    if logits.shape[-1] == 1:
        return jnp.sign(z)
    p = jax.nn.softmax(logits)
    cotangent = p * (z - jnp.sum(p * z, axis=-1, keepdims=True))
    return cotangent / (jnp.linalg.norm(cotangent, axis=-1, keepdims=True) + _TINY)


def _for_each_class(logits: Array) -> Array:
    """One logit for each class, where one stands for two."""
    if logits.shape[-1] > 1:
        return logits
    return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)


def _of_norm(
    lengths: Float[Array, "batch"], direction: Float[Array, "batch time features"]
) -> Float[Array, "batch time features"]:
    """Scales each row's direction to a length. A direction of zeros stays."""
    direction = direction.astype(jnp.float32)
    # Scaled first: the squares of small gradients would underflow.
    direction /= jnp.max(jnp.abs(direction), axis=(1, 2), keepdims=True) + _TINY
    norm = jnp.sqrt(jnp.sum(jnp.square(direction), axis=(1, 2), keepdims=True))
    return lengths[:, None, None] * direction / (norm + _TINY)
