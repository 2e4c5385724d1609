"""Tests whether attention shows which words a prediction depends on.

Two tests. The first compares four measures of a word's importance by rank (Jain and Wallace 2019, arXiv
1902.10186): the attention weight, gradient times input, integrated gradients (Sundararajan et al. 2017,
1703.01365) and the change when the word is left out. The agreement of the last three with each other is the
yardstick for attention's (Wiegreffe and Pinter 2019, 1908.04626). The second deletes the words that a measure
ranks highest, or keeps only those, and compares with random words: comprehensiveness and sufficiency (DeYoung
et al. 2020, 1911.03429).

The tests see a model only through `Predictor`, `model.embed(ids)` and `model(ids, embedded=...)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bahdanau_jax.errors import one_line
from bahdanau_jax.evaluation.predictor import Predictor, outside_meshes, padded_batches
from bahdanau_jax.evaluation.significance import mean_interval
from bahdanau_jax.token_ids import START

ATTENTION, GRADIENT, INTEGRATED, LEFT_OUT = MEASURES = (
    "attention",
    "gradient x input",
    "integrated gradients",
    "leaving out",
)
RANDOM = "random words"
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of a text's words; DeYoung et al., section 5
STEPS = 24  # of the integral
RANDOM_ORDERS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Faithfulness:
    """Results on n texts.

    Attributes:
        words: int [n], number of words of each text that the model reads.
        agreement: Kendall's tau for each pair of measures, float64 [n]; NaN where a measure has no order.
        deleted: float64 [n, shares] for each measure and for random words: by how much the probability of
            the class predicted from the whole text falls when the top share of words is deleted.
        kept: the same when only the top share of words is kept.
    """

    words: np.ndarray
    agreement: dict[tuple[str, str], np.ndarray]
    deleted: dict[str, np.ndarray]
    kept: dict[str, np.ndarray]


def obstacle(predictor: Predictor) -> str | None:
    """Returns why the model cannot be measured, or None: gradients need `embed(ids)` and `embedded=`."""

    def trial(ids: jax.Array) -> jax.Array:
        classes = np.zeros(1, np.int32)
        return _gradient_times_input(predictor.graphdef, predictor.state, ids, classes, 1.0)

    try:
        jax.eval_shape(trial, jax.ShapeDtypeStruct((1, predictor.bucket_lengths[0]), np.int32))
    except (AttributeError, TypeError) as error:
        return one_line(error)
    return None


def measure(predictor: Predictor, texts: Sequence[str], *, seed: int = 0) -> Faithfulness:
    """Compares attention with the other measures on texts of 2 words or more.

    Args:
        predictor: of a model without an `obstacle`.
        texts: the texts.
        seed: of the random words.
    """
    from scipy.stats import kendalltau  # takes 0.6 s to import, which no run should wait for

    ids = predictor.vocabulary.encode_all(texts, max_length=predictor.bucket_lengths[-1])
    importance = importances(predictor, ids)

    def tau(x: np.ndarray, y: np.ndarray) -> float:
        found: Any = kendalltau(x, y)
        return float(found.statistic)

    agreement = {
        (a, b): np.array([tau(*xy) for xy in zip(importance[a], importance[b], strict=True)])
        for a, b in combinations(MEASURES, 2)
    }
    rng = np.random.default_rng(seed)
    whole = predictor.predict_ids(ids)[0]
    words = np.array([np.count_nonzero(x != START) for x in ids])
    effects = {
        name: erase(predictor, ids, [np.argsort(-x, kind="stable") for x in values], whole)
        for name, values in importance.items()
    }
    at_random = [
        erase(predictor, ids, [rng.permutation(n) for n in words], whole)
        for _ in range(RANDOM_ORDERS)
    ]
    effects[RANDOM] = tuple(np.mean([x[i] for x in at_random], axis=0) for i in range(2))
    return Faithfulness(
        words,
        agreement,
        {name: effect[0] for name, effect in effects.items()},
        {name: effect[1] for name, effect in effects.items()},
    )


def importances(predictor: Predictor, ids: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Returns the importance of each word by each measure, a [words] for each text; START is left out.

    All are magnitudes, because attention has no sign.
    """
    whole, weights = predictor.predict_ids(ids)
    classes = whole.argmax(axis=1)
    is_word = [x != START for x in ids]
    at_input, integral = gradients(predictor, ids, classes)
    measured = {
        ATTENTION: weights,
        GRADIENT: [np.abs(x) for x in at_input],
        INTEGRATED: [np.abs(x) for x in integral],
    }
    found = {
        name: [x[real] for x, real in zip(values, is_word, strict=True)]
        for name, values in measured.items()
    }
    found[LEFT_OUT] = leave_one_out(predictor, ids, whole, classes)
    return found


def gradients(
    predictor: Predictor, ids: Sequence[np.ndarray], classes: np.ndarray, *, steps: int = STEPS
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns gradient times input and integrated gradients of the log-odds of `classes`, per position.

    The input is the vector that the encoder reads for a token. The integral goes from zero vectors to the
    inputs, so its sum over positions is the difference between the log-odds at both ends.

    Args:
        predictor: the model.
        ids: int32 [length] each.
        classes: int [n], one for each text.
        steps: of the integral, by the midpoint rule.

    Returns:
        two lists, with a float [length] for each text.
    """
    at_input: list[np.ndarray] = [np.zeros(0)] * len(ids)
    integral = list(at_input)
    for chosen, batch in padded_batches(ids, predictor.bucket_lengths):
        targets = np.zeros(len(batch), np.int32)
        targets[: len(chosen)] = classes[chosen]

        def at(share: float, batch=batch, targets=targets) -> jax.Array:
            return _gradient_times_input(
                predictor.graphdef, predictor.state, batch, targets, np.float32(share)
            )

        with outside_meshes():
            whole = np.asarray(at(1.0))
            mean = np.asarray(sum(at((i + 0.5) / steps) for i in range(steps))) / steps
        for row, i in enumerate(chosen):
            at_input[i], integral[i] = (x[row, : len(ids[i])] for x in (whole, mean))
    return at_input, integral


@partial(jax.jit, static_argnums=0)
def _gradient_times_input(graphdef, state, ids, classes, share):
    """Returns the inputs times the gradient at `share` times the inputs, [batch, time]."""
    model = nnx.merge(graphdef, state)
    embedded = model.embed(ids)  # [batch, time, features]

    def total_log_odds(x):
        return jnp.sum(log_odds(model(ids, embedded=x)[0], classes))

    gradient = jax.grad(total_log_odds)(share * embedded)
    return (embedded * gradient).astype(jnp.float32).sum(-1)


def log_odds(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns log(p / (1 - p)) of one class for each row of logits [batch, outputs].

    Example:
      >>> import jax.numpy as jnp
      >>> log_odds(jnp.array([[2.0], [2.0]]), jnp.array([1, 0])).tolist()
      [2.0, -2.0]
    """
    if logits.shape[-1] == 1:
        return jnp.where(classes == 1, 1.0, -1.0) * logits[:, 0]
    own = jnp.arange(logits.shape[-1]) == classes[:, None]
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=-1)
    return jnp.sum(jnp.where(own, logits, 0), axis=-1) - others


def leave_one_out(
    predictor: Predictor, ids: Sequence[np.ndarray], whole: np.ndarray, classes: np.ndarray
) -> list[np.ndarray]:
    """Returns by how much the class's probability changes when a word is deleted, a [words] for each text."""
    shorter = [np.delete(x, i) for x in ids for i in np.flatnonzero(x != START)]
    p = predictor.predict_ids(shorter)[0]
    ends = np.cumsum([np.count_nonzero(x != START) for x in ids])
    return [
        np.abs(whole[i, c] - rows[:, c])
        for i, (c, rows) in enumerate(zip(classes, np.split(p, ends[:-1]), strict=True))
    ]


def erase(
    predictor: Predictor,
    ids: Sequence[np.ndarray],
    orders: Sequence[np.ndarray],
    whole: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Deletes the first words of each order, or keeps only those: (comprehensiveness, sufficiency).

    Args:
        predictor: the model.
        ids: int32 [length] each.
        orders: [words] each, a permutation of 0 to words - 1, most important first.
        whole: [n, classes], the probabilities of the whole texts.

    Returns:
        by how much the probability of the predicted class falls, float64 [n, shares] each.
    """
    deleted, kept = [], []
    for x, order in zip(ids, orders, strict=True):
        words = np.flatnonzero(x != START)
        for share in SHARES:
            first = words[order[: max(1, round(share * len(words)))]]
            deleted.append(np.delete(x, first))
            kept.append(x[np.sort(np.r_[np.flatnonzero(x == START), first])])
    p = predictor.predict_ids(deleted + kept)[0].astype(np.float64)
    p = p.reshape(2, len(ids), len(SHARES), -1)  # [2, n, shares, classes]
    classes = whole.argmax(axis=1)
    rows = np.arange(len(ids))
    fall = whole[rows, classes][:, None] - p[:, rows, :, classes].swapaxes(0, 1)
    return fall[0], fall[1]


def mean_with_interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float, float]:
    """Returns the mean over texts and its 95% bootstrap interval, without texts whose value is NaN.

    Example:
      >>> mean_with_interval(np.array([1.0, 1.0, np.nan]))
      (1.0, 1.0, 1.0)
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    return float(values.mean()), *mean_interval(values, seed=seed)
