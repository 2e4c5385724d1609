"""Losses and metrics against scikit-learn, and sums that add up over any split into batches."""

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from bahdanau_jax.evaluation.metrics import Metrics, loss_and_metrics, per_example_loss
from bahdanau_jax.models.probabilities import predicted_class, probabilities


@pytest.mark.parametrize("classes", [2, 3])
def test_equals_scikit_learn(classes):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 1 if classes == 2 else classes)).astype(np.float32) * 3
    labels = rng.integers(0, classes, 40)
    p = np.asarray(probabilities(logits), np.float64)
    p /= p.sum(1, keepdims=True)
    loss, figures = loss_and_metrics(logits, labels, np.ones(40, bool))
    np.testing.assert_allclose(loss, sk.log_loss(labels, p, labels=range(classes)), rtol=1e-5)
    assert figures.correct / figures.count == np.float32(
        sk.accuracy_score(labels, predicted_class(logits))
    )


@pytest.mark.slow
def test_sums_add_up_over_uneven_batches():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(10, 1)).astype(np.float32), rng.integers(0, 2, 10)
    whole = loss_and_metrics(logits, labels, np.ones(10, bool))[1]
    parts = [
        loss_and_metrics(logits[rows], labels[rows], np.ones(len(labels[rows]), bool))[1]
        for rows in (slice(0, 7), slice(7, 10))
    ]
    np.testing.assert_allclose(whole, Metrics(*map(sum, zip(*parts, strict=True))), rtol=1e-6)


def test_extreme_logits_give_finite_losses_and_gradients():
    logits = np.array([[1e4], [-1e4]], np.float32)
    np.testing.assert_allclose(per_example_loss(logits, np.array([0, 1])), [1e4, 1e4])
    grads = jax.grad(lambda x: per_example_loss(x, np.array([0, 1])).sum())(logits)
    np.testing.assert_array_equal(grads, [[1.0], [-1.0]])


def test_a_batch_of_fillers_is_zero_not_nan():
    loss, figures = loss_and_metrics(
        np.zeros((2, 1), np.float32), np.zeros(2, int), np.zeros(2, bool)
    )
    assert loss == 0 and tuple(figures) == (0, 0, 0)


def test_one_half_is_class_zero_as_under_keras():
    np.testing.assert_array_equal(predicted_class(np.array([[0.0], [1e-3]], np.float32)), [0, 1])
