"""Writes one HTML file about a finished run: its results, its mistakes, and whether its attention is faithful.

    make_report("runs/imdb")    # PosixPath("runs/imdb/report.html")

The report reads only run folders, and the page loads nothing from the network.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation import calibration, faithfulness
from bahdanau_jax.evaluation.faithfulness import mean_with_interval
from bahdanau_jax.evaluation.significance import bootstrap_interval, mcnemar
from bahdanau_jax.report import figures, reviews
from bahdanau_jax.report.run_data import Run, read_run
from bahdanau_jax.report.template import template
from bahdanau_jax.runs.parse_config import flatten
from bahdanau_jax.runs.predictions import (
    SAMPLE,
    Predictions,
    check_same_data,
    read_predictions,
    same_reviews,
)
from bahdanau_jax.runs.safe_files import write_text

LENGTH_GROUPS = 5


def make_report(
    *workdirs: str | Path, output: str | Path | None = None, baseline: str | Path | None = None
) -> Path:
    """Writes the report of a finished run, or of several runs on the same data side by side.

    First fits each run's temperature and keeps it in the run's folder (`calibration.py`).

    Args:
      workdirs: the runs' folders, at most 5.
      output: the file; None: report.html in the first folder, or compared.html for several runs.
      baseline: the folder of `experiments.baseline`; None: the folder "baseline" beside the first run's, if
        it holds predictions of the same test reviews.

    Returns:
      the path of the file.

    Raises:
      InputError: a folder holds no finished run, a file in it is damaged, or the runs' data differ.
    """
    begun = time.monotonic()
    folders = [Path(workdir).expanduser() for workdir in workdirs]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = ["/".join(folder.resolve().parts[-2:]) for folder in folders]
    runs = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    for run in runs[1:]:
        check_same_data(runs[0].folder, run.folder)
        if not same_reviews(run.test, runs[0].test):
            raise InputError(
                f"{run.folder} and {runs[0].folder} were tested on different reviews; expected "
                "runs on the same data"
            )
    page = _page(runs, find_baseline(runs[0], baseline), begun)
    name = "report.html" if len(runs) == 1 else "compared.html"
    file = Path(output).expanduser() if output else folders[0] / name
    # JSON can hold half a surrogate pair, UTF-8 cannot: it becomes a question mark.
    write_text(file, page.encode("utf-8", "replace").decode())
    return file


def find_baseline(run: Run, folder: str | Path | None) -> Predictions | None:
    """Returns a baseline's test predictions in the run's order, or None if there are none for its reviews.

    Raises:
      InputError: `folder` is given and holds none.
    """
    given = folder is not None
    folder = Path(folder).expanduser() if given else run.folder.resolve().parent / "baseline"
    if not given and (folder.resolve() == run.folder.resolve() or not folder.is_dir()):
        return None
    try:
        found = read_predictions(folder)
        rows = {name: i for i, name in enumerate(found.ids)}
        order = np.array([rows[name] for name in run.test.ids])
    except (InputError, KeyError) as error:
        if given and isinstance(error, InputError):
            raise
        if given:
            raise InputError(f"{folder} was tested on other reviews than {run.folder}") from error
        return None
    return Predictions(run.test.ids, run.test.labels, found.probabilities[order])


def _page(runs: Sequence[Run], baseline: Predictions | None, begun: float) -> str:
    first = runs[0]
    others = [] if baseline is None else [("baseline", baseline)]
    compared = others + [(run.name, run.test) for run in runs[1:]]
    rows = [
        (name, *_accuracy(x.correct))
        for name, x in [*((run.name, run.test) for run in runs), *others]
    ]
    return template("report.html").render(
        runs=runs,
        test_description=first.result.get("test_description", "test"),
        rows=rows,
        accuracies=Markup(figures.accuracies(rows)),
        tests=[(name, mcnemar(first.test.correct, x.correct)) for name, x in compared],
        curves=[
            Markup(figures.learning_curves({run.name: _curve(run, what) for run in runs}, what))
            for what in ("loss", "accuracy")
        ],
        confusions=[_confusion(run) for run in runs],
        reliabilities=[_reliability(run) for run in runs],
        lengths=_by_length(runs, baseline),
        mistakes=[reviews.shown(run, mistakes=True) for run in runs],
        hits=[reviews.shown(run, mistakes=False) for run in runs],
        words=[reviews.heaviest_words(run) for run in runs],
        agreement=_agreement(runs),
        erasures=[_erasure(run) for run in runs],
        disagreements=reviews.disagreements(runs) if len(runs) == 2 else [],
        settings=[_settings(run, runs) for run in runs],
        sample=SAMPLE,
        least_occurrences=reviews.LEAST_OCCURRENCES,
        seconds=time.monotonic() - begun,
    )


def _accuracy(correct: np.ndarray) -> tuple[float, float, float]:
    """Accuracy, low and high of its interval; NaN without reviews."""
    if not len(correct):
        return np.nan, np.nan, np.nan
    return float(correct.mean()), *bootstrap_interval(correct)


def _curve(run: Run, what: str) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of training and validation, without values that were not finite."""
    return {
        split: [
            (record["step"], record[what])
            for record in run.metrics
            if record.get("split") == split and record.get(what) is not None
        ]
        for split in ("train", "validation")
    }


def _confusion(run: Run) -> Markup:
    n = len(run.label_names)
    predicted = run.test.probabilities.argmax(axis=1)
    counts = np.bincount(run.test.labels * n + predicted, minlength=n * n).reshape(n, n)
    return Markup(figures.confusion(counts, run.label_names))


def _reliability(run: Run) -> Markup:
    p, labels = run.test.probabilities, run.test.labels
    scaled = calibration.scale(p, run.calibration["temperature"])
    before, after = (calibration.reliability(x, labels) for x in (p, scaled))
    return Markup(figures.reliability(before, after, 1 / p.shape[1]))


def _by_length(runs: Sequence[Run], baseline: Predictions | None) -> Markup | None:
    """Accuracy in groups of equal size; None if the run kept no lengths or all are equal."""
    words = runs[0].test.words
    if words is None or words.min() == words.max():
        return None
    edges = np.unique(np.quantile(words, np.linspace(0, 1, LENGTH_GROUPS + 1)).astype(int))
    groups = np.clip(np.searchsorted(edges, words, side="right") - 1, 0, len(edges) - 2)
    series = {run.name: run.test for run in runs}
    if baseline is not None:
        series["baseline"] = baseline
    values = {
        name: [_accuracy(x.correct[groups == i]) for i in range(len(edges) - 1)]
        for name, x in series.items()
    }
    labels = [
        f"{low}–{high - (i < len(edges) - 2)}"
        for i, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True))
    ]
    return Markup(figures.by_length(labels, values))


def _agreement(runs: Sequence[Run]) -> dict[str, Any] | None:
    """The figure of rank correlations, and their means with and without attention, by run."""
    measured = {run.name: run.faithfulness for run in runs if run.faithfulness is not None}
    if not measured:
        return None
    first = next(iter(measured.values()))
    pairs = list(first.agreement)
    series = {
        name: [mean_with_interval(found.agreement[pair]) for pair in pairs]
        for name, found in measured.items()
    }

    def means(values: Sequence[tuple], *, of_attention: bool) -> list[tuple]:
        found = zip(pairs, values, strict=True)
        return [x for pair, x in found if (faithfulness.ATTENTION in pair) == of_attention]

    return {
        "figure": Markup(figures.agreement(pairs, series)),
        "n": len(first.words),
        "means": [
            {
                "name": name,
                "attention": means(values, of_attention=True),
                "others": means(values, of_attention=False),
            }
            for name, values in series.items()
        ],
    }


def _erasure(run: Run) -> dict[str, Any] | None:
    """The figures of deleted and of kept words, and the falls at a tenth of the words."""
    found = run.faithfulness
    if found is None:
        return None
    tenth = faithfulness.SHARES.index(0.1)
    parts: dict[str, Any] = {}
    for what, falls, title in (
        ("deleted", found.deleted, "share of the words deleted"),
        ("kept", found.kept, "share of the words kept"),
    ):
        series = {
            name: [mean_with_interval(values[:, i]) for i in range(values.shape[1])]
            for name, values in falls.items()
            if name != faithfulness.GRADIENT
        }
        parts[what] = {
            "figure": Markup(figures.erasure(faithfulness.SHARES, series, title)),
            "at_a_tenth": {name: values[tenth][0] for name, values in series.items()},
            "over_random": mean_with_interval(
                (falls[faithfulness.ATTENTION] - falls[faithfulness.RANDOM])[:, tenth]
            ),
        }
    return parts


def _settings(run: Run, runs: Sequence[Run]) -> list[tuple[str, str, bool]]:
    """Each field of the config, its value, and whether the runs differ in it."""
    flat = [flatten(x.config) for x in runs]
    return [
        (name, json.dumps(value), any(x.get(name) != value for x in flat))
        for name, value in flatten(run.config).items()
    ]
