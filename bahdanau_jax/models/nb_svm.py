"""Fits the linear model of n-grams: NB-SVM."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from bahdanau_jax.models.ngrams import distinct_rows


class TextBatch(Protocol):
    """A padded batch of texts, as `data.batches.Batch`."""

    ids: Any  # int32 [batch, time]
    labels: Any  # int32 [batch]
    real: Any  # bool [batch], False for filler rows
    rows: Any  # int32 [batch], the text's row in the data set


class Choice(NamedTuple):
    """Settings that depend on the data: reviews of 240 words need others than sentences of 20."""

    min_texts: int  # n-grams in fewer texts are left out
    c: float  # inverse of the penalty on squared weights


CHOICES = [Choice(min_texts, c) for min_texts in (1, 3) for c in (10.0, 100.0, 1_000.0)]


class Fitted(NamedTuple):
    """An NgramClassifier's variables, float32."""

    weights: Float[np.ndarray, "rows outputs"]
    squared_scales: Float[np.ndarray, "rows"]
    bias: Float[np.ndarray, "outputs"]


def fit_ngrams(
    batches: Iterable[TextBatch],
    *,
    n: int,
    rows: int,
    outputs: int = 1,
    unlabelled: Iterable[TextBatch] = (),
    choices: Sequence[Choice] = CHOICES,
) -> tuple[Fitted, Choice]:
    """NB-SVM (Wang and Manning 2012, ACL P12-2018); rare n-grams weigh more, and each text has norm 1.

    An n-gram in a text has the value idf**2 / norm * sign(r) * sqrt(abs(r)). idf is log(texts / texts with the
    n-gram), norm is that of all idf**2 of the text, and r is the naive-Bayes log-count ratio log((p / |p|) /
    (q / |q|)), where p counts the texts of a class with the n-gram and q the other texts with it, both plus 1.
    A logistic regression (the paper has an SVM) on these values gives the weights. The paper uses r alone;
    docs/accuracy.md measures the rest.

    Each choice is fitted to two thirds of each class's texts; the one with the least loss on the others is
    fitted to all texts. Texts without labels are counted in a second fit: in p by their probability of the
    class under the first fit, and in q by the rest. The regression uses labelled texts alone.

    Args:
      batches: each text once.
      n, rows: of the NgramClassifier.
      outputs: 1 for two classes, otherwise one per class.
      unlabelled: texts without labels.
      choices: to choose from.

    Returns:
      the variables and the choice.

    Example:
      >>> from types import SimpleNamespace
      >>> ids, labels = np.array([[5], [7], [5], [7]]), np.array([0, 1, 0, 1])
      >>> batch = SimpleNamespace(ids=ids, labels=labels, real=np.ones(4, bool), rows=np.arange(4))
      >>> fitted, choice = fit_ngrams([batch], n=1, rows=1000, choices=[Choice(min_texts=1, c=10.0)])
      >>> int((fitted.weights > 0).sum()), int((fitted.weights < 0).sum())
      (1, 1)
    """
    find = jax.jit(partial(distinct_rows, n=n, rows=rows))
    texts, labels = _read(batches, find)
    fit = partial(_fit, rows=rows, outputs=outputs)
    choice = choices[0] if len(choices) == 1 else _choose(texts, labels, outputs, fit, choices)
    fitted = fit(texts, labels, choice=choice)
    others, _ = _read(unlabelled, find)
    if others:
        fitted = fit(texts, labels, choice=choice, others=_soft_counts(fitted, others))
    return fitted, choice


def _read(batches: Iterable[TextBatch], find: Callable) -> tuple[list[np.ndarray], np.ndarray]:
    """Each text's distinct rows and label, in the order of the data set; batches are ordered by length."""
    of_row = {}
    for batch in batches:
        found = np.asarray(find(batch.ids))
        for i in np.flatnonzero(batch.real):
            of_row[int(batch.rows[i])] = found[i][found[i] >= 0], batch.labels[i]
    ordered = [of_row[row] for row in sorted(of_row)]
    return [found for found, _ in ordered], np.array([label for _, label in ordered])


def _choose(
    texts: Sequence[np.ndarray],
    labels: Int[np.ndarray, "texts"],
    outputs: int,
    fit: Callable[..., Fitted],
    choices: Sequence[Choice],
) -> Choice:
    """The choice that has the least loss on a third of each class."""
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[2::3]] = True
    inside, outside = (
        [texts[i] for i in np.flatnonzero(x).tolist()] for x in (~held_out, held_out)
    )

    def loss(choice: Choice) -> float:
        logits = _logits(fit(inside, labels[~held_out], choice=choice), outside)
        is_class = np.stack(
            [_is_class(labels[held_out], k, outputs) for k in range(outputs)], axis=1
        )
        return float(np.logaddexp(0, np.where(is_class, -logits, logits)).sum())

    return min(choices, key=loss)


def _soft_counts(
    fitted: Fitted, texts: Sequence[np.ndarray]
) -> tuple[Float[np.ndarray, "outputs rows"], Float[np.ndarray, "rows"]]:
    """For each output and row, the sum of the probabilities of the texts with that row; and their number."""
    rows, outputs = fitted.weights.shape
    soft, holding = np.zeros((outputs, rows), np.float32), np.zeros(rows, np.float32)
    for start in range(0, len(texts), 2_000):  # the rows of all texts at once would be a gigabyte
        part = texts[start : start + 2_000]
        probabilities = expit(_logits(fitted, part))
        column, text = _joined(part)
        holding += np.bincount(column, minlength=rows)
        for output in range(outputs):
            soft[output] += np.bincount(column, probabilities[text, output], minlength=rows)
    return soft, holding


def _is_class(labels: Int[np.ndarray, "texts"], output: int, outputs: int) -> np.ndarray:
    """Whether each text belongs to the class of an output."""
    return labels == (1 if outputs == 1 else output)


def _joined(texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all texts, concatenated, and the text of each."""
    text = np.repeat(np.arange(len(texts)), [len(found) for found in texts])
    return np.concatenate(texts), text


def _norms(squares: np.ndarray, text: np.ndarray, count: int) -> Float[np.ndarray, "count"]:
    """Each text's norm; 1 for a text without a known n-gram."""
    norms = np.sqrt(np.bincount(text, weights=squares, minlength=count))
    return np.where(norms > 0, norms, 1)


def _fit(
    texts: Sequence[np.ndarray],
    labels: Int[np.ndarray, "texts"],
    *,
    rows: int,
    outputs: int,
    choice: Choice,
    others: tuple[np.ndarray, np.ndarray] | None = None,
) -> Fitted:
    """Fits texts, each given as the distinct rows of its n-grams; `others` comes from `_soft_counts`."""
    column, text = _joined(texts)
    holding = np.bincount(column, minlength=rows)  # texts with an n-gram of each row
    # Far fewer rows than the table has. What follows works on these.
    known = np.flatnonzero(holding >= choice.min_texts)
    place = np.full(rows, -1, np.int32)
    place[known] = np.arange(len(known))
    column = place[column]
    column, text = column[column >= 0], text[column >= 0]
    ends = np.searchsorted(text, np.arange(len(texts) + 1)).astype(np.int32)
    scale = np.log(len(labels) / holding[known]) ** 2
    norm = _norms(scale[column] ** 2, text, len(labels))[text]
    weights, bias = np.zeros((rows, outputs), np.float32), np.zeros(outputs, np.float32)
    squared_scales = np.zeros(rows, np.float32)
    squared_scales[known] = scale**2
    for output in range(outputs):
        is_class = _is_class(labels, output, outputs)
        inside = is_class[text]
        p, q = (1.0 + np.bincount(column[x], minlength=len(known)) for x in (inside, ~inside))
        if others is not None:
            soft, number = others[0][output, known], others[1][known]
            p, q = p + soft, q + (number - soft)
        ratio = np.log(p / p.sum()) - np.log(q / q.sum())
        factor = scale * np.sign(ratio) * np.sqrt(np.abs(ratio))
        # The solver needs a feature even where no n-gram is in enough texts: an empty one.
        shape = len(labels), max(1, len(known))
        features = csr_array((factor[column] / norm, column, ends), shape)
        solver = LogisticRegression(
            C=choice.c, solver="liblinear", dual=True, max_iter=1_000, random_state=0
        )
        with warnings.catch_warnings():
            # A large C on few texts can stop early; the held-out loss judges that, too.
            warnings.simplefilter("ignore", ConvergenceWarning)
            solver.fit(features, is_class)
        weights[known, output] = solver.coef_[0, : len(known)] * factor
        bias[output] = np.asarray(solver.intercept_)[0]
    return Fitted(weights, squared_scales, bias)


def _logits(fitted: Fitted, texts: Sequence[np.ndarray]) -> Float[np.ndarray, "texts outputs"]:
    """The NgramClassifier's logits of texts, each given as the distinct rows of its n-grams."""
    column, text = _joined(texts)
    norm = _norms(fitted.squared_scales[column], text, len(texts))
    sums = [np.bincount(text, weights=w[column], minlength=len(texts)) for w in fitted.weights.T]
    return np.stack(sums, axis=1) / norm[:, None] + fitted.bias
