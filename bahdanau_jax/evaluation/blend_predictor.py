"""A blend of finished runs as a function, as `Predictor` is one of a single run."""

import copy
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import Float

from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Prediction, Predictor
from bahdanau_jax.runs.safe_files import read_json

METHOD = "blend"  # in config.json; `experiments.blend` writes the folder
_TINY = 1e-30


def voices_of(
    probabilities: Sequence[Float[np.ndarray, "n classes"]],
) -> Float[np.ndarray, "runs n classes"]:
    """The logarithms of several runs' probabilities, which are logits too."""
    return np.log(np.maximum(np.stack(probabilities).astype(np.float64), _TINY))


def runs_of(workdir: str | Path) -> list[Path]:
    """The folders of the runs that a folder blends; none if it holds no blend."""
    folder = Path(workdir).expanduser()
    file = folder / "config.json"
    found = read_json(file) if file.is_file() else {}
    if not isinstance(found, dict) or found.get("method") != METHOD:
        return []
    runs = found.get("runs")
    if not isinstance(runs, list) or not all(isinstance(run, str) for run in runs):
        raise InputError(f"{file} is damaged: expected the folders of runs under 'runs'")
    return [Path(os.path.normpath(folder / run)) for run in runs]  # relative, so they move together


def digest_of(run: Path) -> str:
    """The digest of a run's predictions, by which a blend knows its runs.

    Raises:
      InputError: the run has none.
    """
    file = run / "predictions.jsonl"
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error


class BlendPredictor:
    """Adds the logits of several runs, each times its scale.

    Each run reads a text with its own tokenizer and vocabulary. Words and attention weights of a prediction are
    the first run's.

    Args:
      predictors: of the runs, of the same classes in the same order.
      scales: one for each run, as `fit_scales` returns them.

    Example::

        BlendPredictor.load("runs/imdb_blend")(["A quiet, wonderful film."])[0].label  # "pos"
    """

    def __init__(self, predictors: Sequence[Predictor], scales: Sequence[float]):
        self.predictors = [copy.copy(predictor) for predictor in predictors]
        self.scales = np.asarray(scales, np.float64)
        self.label_names = self.predictors[0].label_names
        for predictor in self.predictors:
            if predictor.label_names != self.label_names:
                raise InputError(
                    f"the runs of the blend have the classes {', '.join(self.label_names)} and "
                    f"{', '.join(predictor.label_names)}; expected the same in the same order"
                )
            predictor.temperature = 1.0  # the scales are fitted to what the runs say without one

    @classmethod
    def load(cls, workdir: str | Path, *, products: str = "float32") -> Self:
        """Reads the folder of a blend, and its runs.

        Raises:
          InputError: the folder or one of its runs is missing, damaged or another one than was blended.
        """
        file = Path(workdir).expanduser() / "result.json"
        runs = runs_of(workdir)
        result = read_json(file) if file.is_file() else {}
        try:
            scales, digests = result["scales"], result["predictions_sha256"]
            if not len(scales) == len(digests) == len(runs):
                raise ValueError(f"{len(scales)} and {len(digests)}")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{file}: expected scales and predictions_sha256 of the blend's {len(runs)} runs"
            ) from error
        predictors = []
        for run, digest in zip(runs, digests, strict=True):
            try:
                if digest_of(run) != digest:
                    raise InputError(f"{run} holds other predictions than when it was blended")
                predictors.append(Predictor.load(run, products=products))
            except InputError as error:
                raise InputError(f"the blend {workdir}: {error}") from error
        return cls(predictors, scales)

    def __call__(self, texts: Sequence[str]) -> list[Prediction]:
        """A prediction for each text, in the same order. Raises what `Predictor` raises."""
        found = [predictor(texts) for predictor in self.predictors]
        if not len(texts):
            return []
        voices = voices_of([np.stack([x.probabilities for x in of_run]) for of_run in found])
        blended = np.asarray(
            jax.nn.softmax(np.tensordot(self.scales, voices, 1).astype(np.float32))
        )
        return [
            dataclasses.replace(
                first,
                label=self.label_names[int(p.argmax())],
                probability=float(p.max()),
                probabilities=p,
            )
            for first, p in zip(found[0], blended, strict=True)
        ]


def load_predictor(workdir: str | Path, *, products: str = "float32") -> Predictor | BlendPredictor:
    """What predicts with a folder, of a run or of a blend of runs; see `Predictor.load`."""
    load: Any = BlendPredictor.load if runs_of(workdir) else Predictor.load
    return load(workdir, products=products)
