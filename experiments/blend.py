r"""Blends finished runs of the same data: adds their logits, each run's times a scale.

    python -m experiments.blend --runs=runs/imdb_semi,runs/imdb_adversarial --workdir=runs/imdb_blend
    python -m experiments.predict --workdir=runs/imdb_blend "A dull first hour, then pure joy."

--runs     Folders of finished runs, separated by commas, with the same test texts. Their validation texts are
           either the same, or no two runs have one in common (`experiments.folds`). A blend is no run.
--workdir  The folder for config.json, result.json and predictions.jsonl. It holds no weights: the runs' folders
           stay where they are, or move together with it. Other runs, or another order, need another folder.

With the same validation texts, the scales have the greatest likelihood on these, which no run has trained on.
They also say how sure the blend is. Runs of different kinds help each other most. Validation's own figures are
cross-fitted: each half is blended by scales fitted to the other half.

Without common validation texts, the blend is the mean of the logits. Validation is then that of all runs, and
each of its texts is predicted by the run that has not trained on it.

Test takes no part in the choice. The blend is compared with each run on test, by McNemar's exact test.

`experiments.predict` shows the words and attention weights of the first run, whatever its scale.

Takes seconds. docs/accuracy.md has the figures of a blend.

Exit codes: 0 done, 2 wrong flags or input.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.data.dataset import Examples
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.blend_predictor import METHOD, digest_of, runs_of, voices_of
from bahdanau_jax.evaluation.metrics import figures_of_splits
from bahdanau_jax.evaluation.significance import mcnemar
from bahdanau_jax.models.blend import cross_fitted, fit_scales
from bahdanau_jax.runs import console as show
from bahdanau_jax.runs import environment
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.predictions import (
    Predictions,
    check_same_data,
    check_same_validation,
    read_predictions,
    write_predictions,
)
from bahdanau_jax.runs.safe_files import read_json, write_json
from experiments.command import REQUIRED, command, parse_flags


def align(runs: Sequence[Path], found: Sequence[Predictions], split: str) -> list[Predictions]:
    """The predictions of all runs on a split, each in the order of the first run's.

    Raises:
      InputError: a run has other texts or labels than the first one.
    """
    first, aligned = found[0], [found[0]]
    for run, other in zip(runs[1:], found[1:], strict=True):
        row_of = {name: row for row, name in enumerate(other.ids)}
        if row_of.keys() != set(first.ids):
            raise InputError(
                f"{run} and {runs[0]} have different {split} texts ({len(other.ids):,} and "
                f"{len(first.ids):,}); expected the same"
            )
        rows = np.array([row_of[name] for name in first.ids])
        labels, probabilities = other.labels[rows], other.probabilities[rows]
        if (labels != first.labels).any() or probabilities.shape != first.probabilities.shape:
            raise InputError(
                f"{run} and {runs[0]} have different labels of {split} texts; expected runs on the same data"
            )
        aligned.append(Predictions(first.ids, labels, probabilities))
    return aligned


def have_none_in_common(found: Sequence[Predictions]) -> bool:
    """Whether each text is of one run only."""
    names = [name for one in found for name in one.ids]
    return len(set(names)) == len(names)


def blend(runs: Sequence[Path]) -> tuple[dict[str, Any], dict[str, tuple[Examples, np.ndarray]]]:
    """Finds the scales and blends both splits.

    Returns:
      the figures for result.json, and by split the examples (their texts are their ids) and logits.

    Raises:
      InputError: the runs are of different data, or only some of their validation texts are the same.
    """
    validation = [read_predictions(run, "validation") for run in runs]
    tests = align(runs, [read_predictions(run) for run in runs], "test")
    if have_none_in_common(validation):
        scales = np.full(len(runs), 1 / len(runs))
        held_out = Predictions(
            [name for one in validation for name in one.ids],
            np.concatenate([one.labels for one in validation]),
            np.concatenate([one.probabilities for one in validation]),
        )
        (validated,) = voices_of([held_out.probabilities])
    else:
        for run in runs:
            check_same_validation(runs[0], run)
        held_out, *_ = aligned = align(runs, validation, "validation")
        voices = voices_of([x.probabilities for x in aligned])
        scales = fit_scales(voices, held_out.labels)
        validated = cross_fitted(voices, held_out.labels)
    tested = np.tensordot(scales, voices_of([x.probabilities for x in tests]), 1)
    predictions = {"validation": held_out, "test": tests[0]}
    examples = {k: Examples(v.ids, v.labels, v.ids) for k, v in predictions.items()}
    logits = {"validation": validated.astype(np.float32), "test": tested.astype(np.float32)}
    right = logits["test"].argmax(axis=1) == examples["test"].labels
    compared = {}
    for run, alone in zip(runs, tests, strict=True):
        test = mcnemar(right, alone.correct)
        compared[str(run)] = {"accuracy": float(alone.correct.mean()), "p_value": test.p_value}
    figures = {
        "scales": scales.tolist(),
        "splits": figures_of_splits(logits, examples),
        "compared": compared,
    }
    return figures, {split: (examples[split], logits[split]) for split in logits}


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, _ = parse_flags(argv, runs=REQUIRED, workdir=REQUIRED)
    runs = [Path(run).expanduser().resolve() for run in asked.runs.split(",") if run]
    if len(set(runs)) < max(2, len(runs)):
        raise InputError(f"--runs={asked.runs}: expected two or more different folders")
    for run in runs:
        if runs_of(run):
            raise InputError(f"{run} holds a blend; expected the folder of a run")
        check_same_data(runs[0], run)
    started = time.monotonic()
    figures, found = blend(runs)  # before the folder is made
    results = [read_json(run / "result.json") for run in runs]
    here = Path(asked.workdir).expanduser().resolve()
    relative = [os.path.relpath(run, here) for run in runs]
    with open_workdir(asked.workdir, {"method": METHOD, "runs": relative}) as folder:
        write_predictions(folder / "predictions.jsonl", found)
        result = {
            **{key: results[0][key] for key in ("dataset", "label_names", "test_description")},
            "method": METHOD,
            "predictions_sha256": [digest_of(run) for run in runs],
            **figures,
            "seed": results[0]["seed"],
            "epochs": None,
            "steps": None,
            "wall_clock_seconds": time.monotonic() - started,
            "train_seconds": None,
            "parameters": sum(one["parameters"] for one in results),
            **environment.peak_memory(),
            **environment.provenance(),
            "workdir": str(folder),
        }
        write_json(folder / "result.json", result)
        console = show.make_console()
        show.show_result(console, result)
        for scale, (run, one) in zip(figures["scales"], figures["compared"].items(), strict=True):
            console.print(
                f"{scale:.3f} of {run}: alone {one['accuracy']:.4f} on test; McNemar's p against the blend "
                f"{one['p_value']:.2g}",
                soft_wrap=True,
            )


if __name__ == "__main__":
    sys.exit(main())
