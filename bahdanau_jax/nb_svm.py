"""NB-SVM over the n-grams that a model reads: the weights of its linear part, found before training."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from bahdanau_jax.batches import Batch
from bahdanau_jax.ngrams import distinct_rows


class Fitted(NamedTuple):
    """An NgramClassifier's variables, float32."""

    weights: Float[np.ndarray, "rows outputs"]
    squared_scales: Float[np.ndarray, "rows"]
    bias: Float[np.ndarray, "outputs"]


def fit_ngrams(
    batches: Iterable[Batch],
    *,
    n: int,
    rows: int,
    outputs: int = 1,
    min_texts: int = 3,
    alpha: float = 1.0,
    c: float = 1_000.0,
) -> Fitted:
    """NB-SVM (Wang and Manning 2012, ACL P12-2018), rare n-grams weighing more, each text of norm 1.

    An n-gram that occurs in a text has the value idf**2 / norm * sign(r) * sqrt(abs(r)), where idf is
    log(texts / texts that hold it), the norm that of all idf**2 of the text, and r the n-gram's naive-Bayes
    log-count ratio, log((p / |p|) / (q / |q|)): p counts the texts of a class that hold it and q the others,
    both plus `alpha`. A logistic regression on these features, where they have an SVM, finds what each is
    multiplied by. Their features are r alone; what the rest is worth, and what else was tried, is in
    docs/accuracy.md.

    Args:
      batches: all texts, once.
      n, rows: as of the NgramClassifier.
      outputs: 1 for two classes, else one per class.
      min_texts: n-grams in fewer texts are left out.
      alpha: added to every count.
      c: the inverse of the squared weights' penalty.

    Example:
      >>> from bahdanau_jax.batches import eval_batches
      >>> ids = [np.array([word]) for word in (5, 7, 5, 7)]
      >>> batches = eval_batches(ids, np.array([0, 1, 0, 1]), batch_size=4, bucket_lengths=[1])
      >>> weights, squared_scales, bias = fit_ngrams(batches, n=1, rows=1000, min_texts=1)
      >>> (weights != 0).sum().item(), bool(weights.max() == -weights.min())
      (2, True)
    """
    find = jax.jit(partial(distinct_rows, n=n, rows=rows))
    columns, labels = [], []
    for batch in batches:
        found = np.asarray(find(batch.ids))[batch.real]
        columns += [row[row >= 0] for row in found]
        labels.append(batch.labels[batch.real])
    labels = np.concatenate(labels)
    texts = np.bincount(np.concatenate(columns), minlength=rows)  # that hold an n-gram of each row
    known = texts >= min_texts
    columns = [row[known[row]] for row in columns]
    ends = np.cumsum([0, *map(len, columns)]).astype(np.int32)
    column = np.concatenate(columns)
    scale = np.where(known, np.log(len(labels) / np.maximum(texts, 1)) ** 2, 0)
    text = np.repeat(np.arange(len(labels)), np.diff(ends))
    squares = np.bincount(text, weights=scale[column] ** 2, minlength=len(labels))
    norm = np.sqrt(np.where(squares > 0, squares, 1))[text]
    weights, bias = np.zeros((rows, outputs), np.float32), np.zeros(outputs, np.float32)
    for output in range(outputs):
        is_class = labels == (1 if outputs == 1 else output)
        inside = is_class[text]
        p, q = (alpha + np.bincount(column[x], minlength=rows) for x in (inside, ~inside))
        ratio = np.log(p / p[known].sum()) - np.log(q / q[known].sum())
        ratio = np.sign(ratio) * np.sqrt(np.abs(ratio))
        values = (scale * ratio)[column] / norm
        features = csr_array((values, column, ends), (len(labels), rows))
        solver = LogisticRegression(
            C=c, solver="liblinear", dual=True, max_iter=1_000, random_state=0
        )
        solver.fit(features, is_class)
        weights[:, output] = solver.coef_[0] * ratio * scale
        bias[output] = np.asarray(solver.intercept_)[0]
    return Fitted(weights, (scale**2).astype(np.float32), bias)
