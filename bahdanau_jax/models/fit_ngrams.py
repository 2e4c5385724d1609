"""Fits the linear model of n-grams: NB-SVM, and beside it a regression on vectors of n-grams."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int
from sklearn.linear_model import LogisticRegression

from bahdanau_jax.models.nb_svm import (
    Choice,
    Fitted,
    SoftCounts,
    fit_nb_svm,
    frequent,
    in_class,
    joined,
    known_rows,
    log_ratio,
    logits_of,
    norms_of,
    places,
    soft_counts,
    table_of,
)
from bahdanau_jax.models.ngram_vectors import ngram_scores, text_topics, text_vectors
from bahdanau_jax.models.ngrams import HASHES, NO_KEY, distinct_rows


class TextBatch(Protocol):
    """A padded batch of texts, as `data.batches.Batch`."""

    ids: Any  # int32 [batch, time]
    labels: Any  # int32 [batch]
    real: Any  # bool [batch], False for filler rows
    rows: Any  # int32 [batch], the text's row in the data set


MIN_TEXTS = 5  # n-grams in fewer texts have no vector
CHOICES = [Choice(min_texts, c) for min_texts in (1, 3) for c in (10.0, 100.0, 1_000.0)]


def fit_ngrams(
    batches: Iterable[TextBatch],
    *,
    n: int,
    rows: int,
    gaps: bool = False,
    ending: bool = False,
    keyed: bool = False,
    outputs: int = 1,
    features: int = 0,
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

    With `features`, the logits are the mean of these and those of a regression on vectors, which
    `ngram_vectors` learns from all texts. The second regression reads the sum of the vectors of a text's
    n-grams, each times abs(r), over the same norm. It is linear in the n-grams as well, so the weights of both
    are averaged.

    Args:
      batches: each text once.
      n, rows, gaps, ending, keyed: of the NgramClassifier. With `keyed`, the n-grams that most texts hold,
        with and without labels, get the rows.
      outputs: 1 for two classes, otherwise one per class.
      features: size of the vectors of n-grams; 0: none.
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
    space = HASHES if keyed else rows
    find = partial(distinct_rows, n=n, rows=space, gaps=gaps, ending=ending)
    (texts, labels), (others, _) = _read(batches, find), _read(unlabelled, find)
    keys = None
    if keyed:
        found = frequent([*texts, *others], rows)
        texts, others = ([places(found, text) for text in some] for some in (texts, others))
        keys = np.full(rows, NO_KEY, np.int32)
        keys[: len(found)] = found
    fit = partial(fit_nb_svm, rows=rows, outputs=outputs)
    choice = choices[0] if len(choices) == 1 else _choose(texts, labels, outputs, fit, choices)
    fitted, counts = fit(texts, labels, choice=choice), None
    if others:
        counts = soft_counts(fitted, others)
        fitted = fit(texts, labels, choice=choice, others=counts)
    if features:
        fitted = _add_vectors(fitted, texts, labels, others, counts, features)
    return fitted._replace(keys=keys), choice


def _add_vectors(
    fitted: Fitted,
    texts: Sequence[np.ndarray],
    labels: Int[np.ndarray, "texts"],
    others: Sequence[np.ndarray],
    counts: SoftCounts | None,
    features: int,
) -> Fitted:
    """The mean of the fitted model and a regression on vectors, see `fit_ngrams`."""
    rows, outputs = fitted.weights.shape
    everything = [*texts, *others]
    known, _, column, text = known_rows(everything, rows, MIN_TEXTS)
    if not len(known):
        return fitted
    mine = text < len(texts)  # entries of texts with labels
    is_class = [in_class(labels, output, outputs) for output in range(outputs)]
    ratios = [
        log_ratio(column[mine], inside[text[mine]], known, output, counts)
        for output, inside in enumerate(is_class)
    ]
    size = np.max(np.abs(ratios), axis=0).astype(np.float32)
    all_columns, all_text = joined(everything)
    norms = norms_of(fitted.squared_scales[all_columns], all_text, len(everything))
    table = table_of(size, column, text, norms.astype(np.float32), len(known))
    by_ngram = table.T.tocsr()
    topics = text_topics(by_ngram, features=features)
    read = text_vectors(by_ngram, topics)[: len(texts)]
    unit = read.std()
    solvers = [LogisticRegression(max_iter=1_000).fit(read / unit, inside) for inside in is_class]
    coefficients = np.stack([solver.coef_[0] / unit for solver in solvers], axis=1)
    weights = fitted.weights.copy()
    weights[known] += size[:, None] * ngram_scores(by_ngram, topics, coefficients)
    bias = fitted.bias + np.concatenate([solver.intercept_ for solver in solvers])
    return Fitted(weights / 2, fitted.squared_scales, (bias / 2).astype(np.float32))


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
        logits = logits_of(fit(inside, labels[~held_out], choice=choice), outside)
        is_class = np.stack(
            [in_class(labels[held_out], k, outputs) for k in range(outputs)], axis=1
        )
        return float(np.logaddexp(0, np.where(is_class, -logits, logits)).sum())

    return min(choices, key=loss)
