"""Scales of a blend maximise the likelihood; cross-fitted logits do not know their own labels."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bahdanau_jax.models.blend import cross_fitted, fit_scales


def two_voices(classes, n=400):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    true = (2.0 * labels - 1)[:, None] if classes == 2 else 2 * np.eye(classes)[labels]
    noise = rng.normal(size=(2, *true.shape)) * np.array([2.0, 2.5])[:, None, None]
    return (true + noise).astype(np.float32), labels


def test_for_two_classes_it_is_a_logistic_regression_on_platts_targets():
    voices, labels = two_voices(2)
    features = voices[:, :, 0].T
    doubt = 1 / (np.bincount(labels)[labels] + 2)
    solver = LogisticRegression(C=1e9, fit_intercept=False, solver="newton-cholesky")
    solver.fit(
        np.concatenate([features, features]),
        np.concatenate([labels, 1 - labels]),
        sample_weight=np.concatenate([1 - doubt, doubt]),
    )
    np.testing.assert_allclose(fit_scales(voices, labels), solver.coef_[0], rtol=1e-3)


def test_for_three_classes_no_neighbour_is_likelier():
    voices, labels = two_voices(3)

    def loss(scales):
        total = 0.0
        for i, label in enumerate(labels):
            logits = scales[0] * voices[0, i].astype(float) + scales[1] * voices[1, i]
            n = (labels == label).sum()
            target = [(n + 1) / (n + 2) if k == label else 0.5 / (n + 2) for k in range(3)]
            total += np.log(np.exp(logits).sum()) - target @ logits
        return total

    scales = fit_scales(voices, labels)
    assert (scales > 0.1).all()
    for step in ([0.01, 0], [-0.01, 0], [0, 0.01], [0, -0.01]):
        assert loss(scales + step) > loss(scales)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [2, 200])
def test_without_mistakes_the_blend_is_as_sure_as_the_number_of_texts_allows(sign, n):
    labels = np.array([0, 1] * n)
    voice = sign * (2.0 * labels - 1)[None, :, None]
    (scale,) = fit_scales(voice, labels)
    surest = 1 / (1 + np.exp(-scale))
    assert surest == pytest.approx((n + 1) / (n + 2) if sign == 1 else 0.5, rel=1e-4)


def test_a_text_is_blended_by_scales_fitted_to_others():
    voices, labels = two_voices(2)
    blend = cross_fitted(voices, labels)
    accuracies = [((x[:, 0] > 0) == labels).mean() for x in (blend, *voices)]
    assert accuracies[0] > max(accuracies[1:])
    changed = labels.copy()
    changed[::2] = 1 - changed[::2]
    again = cross_fitted(voices, changed)
    np.testing.assert_array_equal(again[::2], blend[::2])
    assert (again[1::2] != blend[1::2]).any()
    assert np.isfinite(cross_fitted(voices[:, :1], labels[:1])).all()
