"""Calibration against hand-computed values and independent formulations."""

import json

import numpy as np
import pytest

from bahdanau_jax import InputError
from bahdanau_jax.evaluation import calibration


def overconfident(n=20_000, temperature=2.5, classes=2, seed=0):
    """Probabilities that are too confident, and labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 1.5
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random(n)[:, None] > true.cumsum(1)[:, :-1]).sum(1)
    said = np.exp(logits * temperature)
    return (said / said.sum(1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_the_true_temperature_is_found_and_lowers_the_error(classes):
    p, labels = overconfident(classes=classes)
    temperature = calibration.fit_temperature(p, labels)
    assert temperature == pytest.approx(2.5, rel=0.06)
    before = calibration.expected_calibration_error(p, labels)
    after = calibration.expected_calibration_error(calibration.scale(p, temperature), labels)
    assert before > 0.1 and after < 0.02
    np.testing.assert_array_equal(calibration.scale(p, temperature).argmax(1), p.argmax(1))


def test_scaling_divides_the_logits():
    logits = np.array([[0.3], [-4.0], [9.0]])
    p = 1 / (1 + np.exp(-logits))
    want = 1 / (1 + np.exp(-logits / 1.7))
    got = calibration.scale(np.concatenate([1 - p, p], axis=1), 1.7)
    np.testing.assert_allclose(got[:, 1:], want, rtol=1e-6)
    np.testing.assert_allclose(got.sum(1), 1)


def test_the_error_agrees_with_a_sum_over_bins():
    p, labels = overconfident(n=500, seed=1)
    confidence, correct = p.max(1).astype(np.float64), p.argmax(1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1])
    want = sum(
        abs((confidence - correct)[bins == b].sum()) for b in np.unique(bins)
    ) / len(labels)  # fmt: skip
    assert calibration.expected_calibration_error(p, labels) == pytest.approx(want)
    counts = calibration.reliability(p, labels)[2]
    assert counts.sum() == 500 and (counts > 0).all()


def test_a_perfect_or_hopeless_model_gets_a_finite_temperature():
    sure = np.array([[0.0, 1.0]] * 10, np.float32)
    for labels in (np.ones(10, int), np.zeros(10, int)):
        temperature = calibration.fit_temperature(sure, labels)
        assert 0.05 <= temperature <= 20
        assert np.isfinite(calibration.scale(sure, temperature)).all()


def write_predictions(folder, probabilities, labels):
    lines = [
        {"split": split, "id": f"{split}/{i}", "label": int(label), "probabilities": p.tolist()}
        for split in ("validation", "test")
        for i, (p, label) in enumerate(zip(probabilities, labels, strict=True))
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def test_the_temperature_is_written_to_the_folder(tmp_path):
    assert calibration.read_temperature(tmp_path) == 1.0
    p, labels = overconfident(n=2_000)
    write_predictions(tmp_path, p, labels)
    kept = calibration.calibrate(tmp_path)
    assert json.loads((tmp_path / "calibration.json").read_text()) == kept
    assert calibration.read_temperature(tmp_path) == kept["temperature"]
    assert kept["fitted_on"] == {"split": "validation", "reviews": 2_000}
    test = kept["expected_calibration_error"]["test"]
    assert test["after"] < test["before"]


@pytest.mark.parametrize("content", ["{}", "[]", '{"temperature": 0}', '{"temperature": "1"}'])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(InputError, match="calibration.json: temperature is .*; expected a number"):
        calibration.read_temperature(tmp_path)


def test_a_model_that_gives_nan_is_refused(tmp_path):
    p, labels = overconfident(n=10)
    p[3] = np.nan
    write_predictions(tmp_path, p, labels)
    with pytest.raises(InputError, match=r"line 4 is .*the number NaN; expected a finite one"):
        calibration.calibrate(tmp_path)
    assert not (tmp_path / "calibration.json").exists()
