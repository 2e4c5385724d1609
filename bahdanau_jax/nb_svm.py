"""NB-SVM over the n-grams that a model reads: the weights of its linear part, found before training."""

from collections.abc import Iterable
from functools import partial

import jax
import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from bahdanau_jax.batches import Batch
from bahdanau_jax.ngrams import distinct_rows


def fit_ngrams(
    batches: Iterable[Batch],
    *,
    n: int,
    rows: int,
    outputs: int = 1,
    alpha: float = 1.0,
    c: float = 1.0,
) -> tuple[Float[np.ndarray, "rows outputs"], Float[np.ndarray, "outputs"]]:
    """An NgramClassifier's weights and bias: NB-SVM (Wang and Manning 2012, ACL P12-2018).

    Each n-gram is scaled by its naive-Bayes log-count ratio, log((p / |p|) / (q / |q|)), where p counts the
    texts of a class that hold it and q the others, both plus `alpha`; a logistic regression on these
    features, where they have an SVM, finds what each ratio is multiplied by.

    Args:
      batches: all texts, once.
      n, rows: as of the NgramClassifier.
      outputs: 1 for two classes, else one per class.
      alpha: added to every count.
      c: the inverse of the squared weights' penalty.

    Returns:
      float32 weights [rows, outputs] and bias [outputs].

    Example:
      >>> from bahdanau_jax.batches import eval_batches
      >>> ids = [np.array([word]) for word in (5, 7, 5, 7)]
      >>> batches = eval_batches(ids, np.array([0, 1, 0, 1]), batch_size=4, bucket_lengths=[1])
      >>> weights, bias = fit_ngrams(batches, n=1, rows=1000)
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
    ends = np.cumsum([0, *map(len, columns)]).astype(np.int32)
    column = np.concatenate(columns)
    seen = np.bincount(column, minlength=rows) > 0  # other rows stand for no n-gram of these texts
    weights, bias = np.zeros((rows, outputs), np.float32), np.zeros(outputs, np.float32)
    for output in range(outputs):
        is_class = labels == (1 if outputs == 1 else output)
        inside = np.repeat(is_class, np.diff(ends))
        p, q = (alpha + np.bincount(column[x], minlength=rows) for x in (inside, ~inside))
        ratio = np.log(p / p[seen].sum()) - np.log(q / q[seen].sum())
        features = csr_array((ratio[column], column, ends), (len(labels), rows))
        solver = LogisticRegression(
            C=c, solver="liblinear", dual=True, max_iter=1_000, random_state=0
        )
        solver.fit(features, is_class)
        weights[:, output] = solver.coef_[0] * ratio
        bias[output] = np.asarray(solver.intercept_)[0]
    return weights, bias
