"""Measures calibration (is a probability of 0.9 right nine times in ten?) and improves it.

Temperature scaling (Guo et al. 2017, arXiv 1706.04599) divides the logits by one number, fitted on the
validation split. It changes the probabilities, but never the predicted class.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.predictions import Predictions, read_predictions
from bahdanau_jax.runs.safe_files import read_json, write_json

BINS = 15  # as in the paper
_LEAST = 2.0**-24  # a float32 probability of 1 may stand for one this much smaller
_RANGE = (0.05, 20.0)  # of the temperature


def reliability(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"], bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups examples by confidence, the probability of the predicted class, and measures accuracy in each bin.

    Args:
      probabilities: of each class.
      labels: the true classes.
      bins: number of bins of equal width from 0 to 1; empty ones are left out.

    Returns:
      mean confidence, accuracy and number of examples of each bin, [bins] each, in order of confidence.

    Example:
      >>> p = np.array([[0.1, 0.9], [0.1, 0.9], [0.4, 0.6]])
      >>> [x.tolist() for x in reliability(p, np.array([1, 0, 1]), bins=10)]
      [[0.6, 0.9], [1.0, 0.5], [1, 2]]
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    some = counts > 0
    sums = (np.bincount(index, weights=x, minlength=bins)[some] for x in (confidence, correct))
    mean_confidence, accuracy = (x / counts[some] for x in sums)
    return mean_confidence, accuracy, counts[some]


def expected_calibration_error(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"], bins: int = BINS
) -> float:
    """Returns the mean distance between confidence and accuracy over the bins (Guo et al., equation 5).

    Example:
      >>> p = np.array([[0.1, 0.9], [0.1, 0.9], [0.4, 0.6]])
      >>> round(expected_calibration_error(p, np.array([1, 0, 1]), bins=10), 4)  # (2 * 0.4 + 0.4) / 3
      0.4
    """
    confidence, accuracy, counts = reliability(probabilities, labels, bins)
    return float(np.sum(counts * np.abs(confidence - accuracy)) / counts.sum())


def scale(
    probabilities: Float[np.ndarray, "n classes"], temperature: float
) -> Float[np.ndarray, "n classes"]:
    """Returns the probabilities after the logits are divided by `temperature`, float64.

    Example:
      >>> scale(np.array([[0.2, 0.8]]), 2.0)  # sqrt(0.2) : sqrt(0.8) = 1 : 2
      array([[0.33333333, 0.66666667]])
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), _LEAST)) / temperature
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fit_temperature(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]
) -> float:
    """Returns the temperature from 0.05 to 20 with the least cross-entropy on these n examples.

    As in Platt 1999, one label in n + 2 counts as uncertain: being right on a few examples does not show that
    a model is never wrong.

    Example:
      >>> p = np.array([[0.01, 0.99]] * 8)  # right 7 times in 8, so the target is (7 * 0.95 + 0.05) / 8
      >>> round(fit_temperature(p, np.array([1, 1, 1, 1, 1, 1, 1, 0])), 3)  # log(99) / log(0.8375 / 0.1625)
      2.802
    """
    from scipy.optimize import minimize_scalar

    n, classes = probabilities.shape
    targets = np.full((n, classes), 1 / (n + 2) / classes)
    targets[np.arange(n), labels] += 1 - 1 / (n + 2)

    def cross_entropy(log_temperature: float) -> float:
        scaled = scale(probabilities, np.exp(log_temperature))
        return -float((targets * np.log(np.maximum(scaled, 1e-300))).sum() / n)

    found: Any = minimize_scalar(
        cross_entropy, bounds=np.log(_RANGE), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def calibrate(workdir: Path) -> dict[str, Any]:
    """Fits the temperature of a finished run and writes it to calibration.json, which `Predictor` reads.

    Args:
      workdir: the run's folder.

    Returns:
      the content of the file: the temperature, the reviews it was fitted on, and the expected calibration
      error of both splits before and after scaling.

    Raises:
      InputError: the folder has no complete predictions.jsonl, or the model gave NaN.
    """
    splits = {split: read_predictions(workdir, split) for split in ("validation", "test")}
    validation = splits["validation"]
    temperature = fit_temperature(validation.probabilities, validation.labels)

    def errors(predictions: Predictions) -> dict[str, float]:
        p, labels = predictions.probabilities, predictions.labels
        after = expected_calibration_error(scale(p, temperature), labels)
        return {"before": expected_calibration_error(p, labels), "after": after}

    kept = {
        "temperature": temperature,
        "fitted_on": {"split": "validation", "reviews": len(validation.labels)},
        "expected_calibration_error": {"bins": BINS}
        | {split: errors(predictions) for split, predictions in splits.items()},
    }
    write_json(workdir / "calibration.json", kept)
    return kept


def read_temperature(workdir: Path) -> float:
    """Returns the temperature in calibration.json, or 1 if the run has no such file.

    Raises:
      InputError: the file is damaged.
    """
    file = workdir / "calibration.json"
    if not file.exists():
        return 1.0
    kept = read_json(file)
    temperature = kept.get("temperature") if isinstance(kept, dict) else None
    low, high = _RANGE
    if not isinstance(temperature, int | float) or not low / 2 <= temperature <= high * 2:
        raise InputError(
            f"{file}: temperature is {temperature!r}; expected a number from {low} to {high}"
        )
    return float(temperature)
