"""NB-SVM, a linear model of n-grams, on texts given as the distinct rows of their n-grams."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression


class Choice(NamedTuple):
    """Settings that depend on the data: reviews of 240 words need others than sentences of 20."""

    min_texts: int  # n-grams in fewer texts are left out
    c: float  # inverse of the penalty on squared weights


class Fitted(NamedTuple):
    """An NgramClassifier's variables, float32, and the int32 hashes of its rows if they have keys."""

    weights: Float[np.ndarray, "rows outputs"]
    squared_scales: Float[np.ndarray, "rows"]
    bias: Float[np.ndarray, "outputs"]
    keys: Int[np.ndarray, "rows"] | None = None


class SoftCounts(NamedTuple):
    """Of texts without labels."""

    soft: Float[np.ndarray, "outputs rows"]  # sum of the probabilities of the texts with a row
    number: Float[np.ndarray, "rows"]  # of these texts


def soft_counts(fitted: Fitted, texts: Sequence[np.ndarray]) -> SoftCounts:
    """Counts texts without labels as each class's by their probability under a first fit."""
    rows, outputs = fitted.weights.shape
    soft, holding = np.zeros((outputs, rows), np.float32), np.zeros(rows, np.float32)
    for start in range(0, len(texts), 2_000):  # the rows of all texts at once would be a gigabyte
        part = texts[start : start + 2_000]
        probabilities = expit(logits_of(fitted, part))
        column, text = joined(part)
        holding += np.bincount(column, minlength=rows)
        for output in range(outputs):
            soft[output] += np.bincount(column, probabilities[text, output], minlength=rows)
    return SoftCounts(soft, holding)


def frequent(texts: Sequence[np.ndarray], limit: int) -> Int[np.ndarray, "at_most_limit"]:
    """The numbers, at most so many, that most texts hold, in increasing order."""
    numbers, counts = np.unique(np.concatenate(texts), return_counts=True)
    return numbers[np.sort(np.argsort(-counts, kind="stable")[:limit])]


def places(keys: Int[np.ndarray, "keys"], found: np.ndarray) -> Int[np.ndarray, "known"]:
    """Where those of the numbers that are keys stand among them.

    Example:
      >>> places(np.array([2, 5, 9]), np.array([9, 4, 2])).tolist()
      [2, 0]
    """
    place = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
    return place[keys[place] == found].astype(np.int32)


def in_class(labels: Int[np.ndarray, "texts"], output: int, outputs: int) -> np.ndarray:
    """Whether each text belongs to the class of an output."""
    return labels == (1 if outputs == 1 else output)


def joined(texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all texts, concatenated, and the text of each."""
    text = np.repeat(np.arange(len(texts)), [len(found) for found in texts])
    return np.concatenate(texts), text


def known_rows(
    texts: Sequence[np.ndarray], rows: int, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows in at least so many texts, far fewer than the table has.

    Returns:
      these rows, the number of their texts, and for each entry of a text its row's place among them and its
      text.
    """
    column, text = joined(texts)
    holding = np.bincount(column, minlength=rows)
    known = np.flatnonzero(holding >= least)
    place = np.full(rows, -1, np.int32)
    place[known] = np.arange(len(known))
    column = place[column]
    return known, holding[known], column[column >= 0], text[column >= 0]


def log_ratio(
    column: np.ndarray,
    inside: np.ndarray,
    known: np.ndarray,
    output: int,
    others: SoftCounts | None,
) -> Float[np.ndarray, "known"]:
    """The naive-Bayes log-count ratio of each known row; `inside`: which entries are of the class's texts."""
    p, q = (1.0 + np.bincount(column[x], minlength=len(known)) for x in (inside, ~inside))
    if others is not None:
        soft, number = others.soft[output, known], others.number[known]
        p, q = p + soft, q + (number - soft)
    return np.log(p / p.sum()) - np.log(q / q.sum())


def table_of(
    values: np.ndarray, column: np.ndarray, text: np.ndarray, norms: np.ndarray, columns: int
) -> csr_array:
    """A matrix [texts, columns] of the columns' values, each text's divided by its norm."""
    ends = np.searchsorted(text, np.arange(len(norms) + 1)).astype(np.int32)
    return csr_array((values[column] / norms[text], column, ends), (len(norms), columns))


def norms_of(squares: np.ndarray, text: np.ndarray, count: int) -> Float[np.ndarray, "count"]:
    """Each text's norm; 1 for a text without a known n-gram."""
    norms = np.sqrt(np.bincount(text, weights=squares, minlength=count))
    return np.where(norms > 0, norms, 1)


def fit_nb_svm(
    texts: Sequence[np.ndarray],
    labels: Int[np.ndarray, "texts"],
    *,
    rows: int,
    outputs: int,
    choice: Choice,
    others: SoftCounts | None = None,
) -> Fitted:
    """Fits texts, each given as the distinct rows of its n-grams; `others` comes from `soft_counts`."""
    known, holding, column, text = known_rows(texts, rows, choice.min_texts)
    scale = np.log(len(labels) / holding) ** 2
    norms = norms_of(scale[column] ** 2, text, len(labels))
    weights, bias = np.zeros((rows, outputs), np.float32), np.zeros(outputs, np.float32)
    squared_scales = np.zeros(rows, np.float32)
    squared_scales[known] = scale**2
    for output in range(outputs):
        is_class = in_class(labels, output, outputs)
        ratio = log_ratio(column, is_class[text], known, output, others)
        factor = scale * np.sign(ratio) * np.sqrt(np.abs(ratio))
        # The solver needs a feature even where no n-gram is in enough texts: an empty one.
        features = table_of(factor, column, text, norms, max(1, len(known)))
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


def logits_of(fitted: Fitted, texts: Sequence[np.ndarray]) -> Float[np.ndarray, "texts outputs"]:
    """The NgramClassifier's logits of texts, each given as the distinct rows of its n-grams."""
    column, text = joined(texts)
    norm = norms_of(fitted.squared_scales[column], text, len(texts))
    sums = [np.bincount(text, weights=w[column], minlength=len(texts)) for w in fitted.weights.T]
    return np.stack(sums, axis=1) / norm[:, None] + fitted.bias
