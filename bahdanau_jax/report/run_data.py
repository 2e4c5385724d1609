"""Reads a finished run for its report: the files of its folder, and predictions for the kept reviews."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation import calibration, faithfulness
from bahdanau_jax.evaluation.faithfulness import Faithfulness
from bahdanau_jax.evaluation.predictor import Prediction, Predictor
from bahdanau_jax.runs.predictions import SAMPLE, Predictions, read_predictions, read_reviews
from bahdanau_jax.runs.safe_files import read_json

TEXTS_MEASURED = 64  # for faithfulness, at most
WORDS_SQUARED = (
    4_000_000  # summed over these texts, at most: leaving out costs the square of the length
)
NO_TEXTS = "This run kept no texts of its test reviews to measure on."
NO_GRADIENTS = (
    "Not measured: gradients need a classifier with embed(ids) and the argument embedded."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The content of a run's folder, and what the report computes from it."""

    name: str
    folder: Path
    result: dict[str, Any]
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    validation: Predictions
    test: Predictions
    calibration: dict[str, Any]
    label_names: tuple[str, ...]
    texts: dict[str, str]  # of the kept test reviews, by id
    predicted: dict[str, Prediction]  # of the same reviews
    faithfulness: Faithfulness | None
    not_measured: str  # why `faithfulness` is None, or empty


def read_run(folder: Path, name: str) -> Run:
    """Reads a finished run and computes the data of its report.

    Raises:
      InputError: the folder holds no finished run, or a file in it is damaged.
    """
    if not (folder / "result.json").exists():
        raise InputError(f"{folder} holds no finished run: it has no result.json")
    result, config = (read_json(folder / x) for x in ("result.json", "config.json"))
    if not isinstance(result, dict) or not isinstance(result.get("splits"), dict):
        raise InputError(f"{folder}/result.json is damaged: expected the fields of a result")
    kept = calibration.calibrate(folder)
    predictor = Predictor.load(folder)
    texts = read_reviews(folder)
    predicted = dict(zip(texts, predictor(list(texts.values())), strict=True))
    measured, not_measured = None, ""
    # Ranks need two words besides the start.
    comparable = [x for x in list(texts)[:SAMPLE] if len(predicted[x].words) > 2]
    if not comparable:
        not_measured = NO_TEXTS
    elif (obstacle := faithfulness.obstacle(predictor)) is not None:
        not_measured = f"{NO_GRADIENTS} {obstacle}"
    else:
        squares = np.cumsum([len(predicted[x].words) ** 2 for x in comparable[:TEXTS_MEASURED]])
        chosen = comparable[: max(1, int((squares <= WORDS_SQUARED).sum()))]
        measured = faithfulness.measure(predictor, [texts[name] for name in chosen])
    return Run(
        name=name,
        folder=folder,
        result=result,
        config=config,
        metrics=_read_metrics(folder / "metrics.jsonl"),
        validation=read_predictions(folder, "validation"),
        test=read_predictions(folder),
        calibration=kept,
        label_names=predictor.label_names,
        texts=texts,
        predicted=predicted,
        faithfulness=measured,
        not_measured=not_measured,
    )


def _read_metrics(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}") from error
