"""Vectors of n-grams are those of an SVD, and carry what is known to words that only other texts have."""

from functools import partial

import numpy as np
import pytest
from scipy.sparse import csr_array

from bahdanau_jax.data.batches import eval_batches
from bahdanau_jax.models.fit_ngrams import fit_ngrams
from bahdanau_jax.models.nb_svm import Choice, logits_of
from bahdanau_jax.models.ngram_vectors import ngram_scores, text_topics, text_vectors
from bahdanau_jax.models.ngrams import distinct_rows

ROWS = 2**20


@pytest.mark.slow
def test_they_are_the_rows_of_an_svd_up_to_their_norm():
    rng = np.random.default_rng(0)
    values = rng.random((40, 60)) * (rng.random((40, 60)) < 0.3)
    values[:, 7] = 0  # an n-gram without a text
    by_ngram = csr_array(values.T.astype(np.float32))
    topics = text_topics(by_ngram, features=5, passes=200)
    vectors = ngram_scores(by_ngram, topics, np.eye(5, dtype=np.float32))
    _, scales, right = np.linalg.svd(values)
    want = (scales[:5, None] * right[:5]).T
    want = want / np.maximum(np.linalg.norm(want, axis=1, keepdims=True), 1e-6)
    # The same up to a rotation.
    np.testing.assert_allclose(vectors @ vectors.T, want @ want.T, atol=1e-4)
    assert vectors.dtype == np.float32 and not vectors[7].any()
    np.testing.assert_allclose(
        text_vectors(by_ngram, topics), values @ vectors, rtol=1e-4, atol=1e-5
    )


def batches_of(words, labels):
    return eval_batches(
        [np.array(x, np.int32) for x in words], labels, batch_size=50, bucket_lengths=(4,)
    )


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.slow
def test_words_that_only_unlabelled_texts_have_get_weights(classes):
    rng = np.random.default_rng(0)

    def make(count, firsts):
        labels = np.arange(count, dtype=np.int32) % classes
        noise = rng.integers(100, 140, (count, 4 - len(firsts)))
        return [
            [f + label for f in firsts] + list(x) for label, x in zip(labels, noise, strict=True)
        ], labels

    outputs = 1 if classes == 2 else classes
    labelled, labels = make(300, [10])
    unlabelled, _ = make(240, [10, 20])
    others, truth = make(60, [20])
    rows = np.asarray(distinct_rows(np.array(others), n=1, rows=ROWS))
    fit = partial(fit_ngrams, n=1, rows=ROWS, outputs=outputs, choices=[Choice(1, 1.0)])
    accuracies = []
    for features in (0, 8):
        unknown = batches_of(unlabelled, np.zeros(240, np.int32))
        fitted, _ = fit(batches_of(labelled, labels), unlabelled=unknown, features=features)
        logits = logits_of(fitted, [row[row >= 0] for row in rows])
        found = logits[:, 0] > 0 if classes == 2 else logits.argmax(axis=1)
        accuracies.append((found == truth).mean())
    assert accuracies[0] < 0.7 and accuracies[1] > 0.85


def test_where_no_ngram_is_in_enough_texts_there_are_no_vectors():
    labels = np.array([0, 1, 0, 1], np.int32)
    fit = partial(fit_ngrams, n=1, rows=ROWS, choices=[Choice(1, 1.0)])
    plain, fitted = (
        fit(batches_of([[5], [6], [5], [6]], labels), features=size)[0] for size in (0, 8)
    )
    np.testing.assert_array_equal(fitted.weights, plain.weights)
