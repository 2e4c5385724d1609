"""Keeps what a comparison of int16 products with float32 found, beside the run: `int16.json`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.safe_files import read_json, write_json

FILE = "int16.json"


class Comparison(NamedTuple):
    """Predictions from int16 products against those from float32 on the same texts.

    Attributes:
      step: training steps of the checkpoint.
      texts: number of texts.
      accuracy_float32, accuracy_int16: share of right labels.
      other_labels: number of texts whose label differs.
      largest_difference: of a probability.
    """

    step: int
    texts: int
    accuracy_float32: float
    accuracy_int16: float
    other_labels: int
    largest_difference: float


def compare(step: int, float32: np.ndarray, int16: np.ndarray, labels: np.ndarray) -> Comparison:
    """Compares probabilities [texts, classes] for texts with these labels [texts].

    Example:
      >>> compare(5, np.array([[0.4, 0.6]]), np.array([[0.5, 0.5]]), np.array([1])).other_labels
      1
    """
    first, second = float32.argmax(axis=1), int16.argmax(axis=1)
    return Comparison(
        step=step,
        texts=len(labels),
        accuracy_float32=float(np.mean(first == labels)),
        accuracy_int16=float(np.mean(second == labels)),
        other_labels=int(np.sum(first != second)),
        largest_difference=float(np.abs(float32 - int16).max()),
    )


def keep(workdir: Path, comparison: Comparison) -> None:
    """Writes the comparison into the run's folder."""
    write_json(workdir / FILE, comparison._asdict())


def check_compared(workdir: Path, step: int) -> None:
    """Raises InputError unless the checkpoint of this step was compared."""
    file = workdir / FILE
    found = read_json(file).get("step") if file.exists() else None
    if found != step:
        what = (
            "is missing" if found is None else f"is of step {found}, the checkpoint of step {step}"
        )
        raise InputError(
            f"{file} {what}; `python -m experiments.int16 --workdir={workdir}` compares int16 with float32"
        )
