"""A finished run as its report needs it: what its folder holds, and what its model makes of its reviews."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax import calibration, faithfulness
from bahdanau_jax.errors import InputError
from bahdanau_jax.faithfulness import Faithfulness
from bahdanau_jax.kept_reviews import SAMPLE, read_reviews
from bahdanau_jax.predict import Prediction, Predictor
from bahdanau_jax.predictions import Predictions, read_predictions
from bahdanau_jax.workdir import read_json

TEXTS_MEASURED = 64  # for faithfulness, unless their words squared, which leaving out costs, exceed
WORDS_SQUARED = 4_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read, and what the report computes of it."""

    name: str
    folder: Path
    result: dict[str, Any]
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    validation: Predictions
    test: Predictions
    calibration: dict[str, Any]
    label_names: tuple[str, ...]
    texts: dict[str, str]  # of the test reviews that were kept, by id
    predicted: dict[str, Prediction]  # of the same
    faithfulness: Faithfulness | None  # None where no text was kept


def read_run(folder: Path, name: str) -> Run:
    """Reads a finished run and computes what its report shows."""
    if not (folder / "result.json").exists():
        raise InputError(f"{folder} holds no finished run: it has no result.json")
    result, config = (read_json(folder / x) for x in ("result.json", "config.json"))
    if not isinstance(result, dict) or not isinstance(result.get("splits"), dict):
        raise InputError(f"{folder}/result.json is damaged: expected the fields of a result")
    kept = calibration.calibrate(folder)
    predictor = Predictor.load(folder)
    texts = read_reviews(folder)
    predicted = dict(zip(texts, predictor(list(texts.values())), strict=True))
    measured = None
    # One word has no order; the start is none.
    comparable = [x for x in list(texts)[:SAMPLE] if len(predicted[x].words) > 2]
    if comparable:
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
    )


def _read_metrics(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}") from error
