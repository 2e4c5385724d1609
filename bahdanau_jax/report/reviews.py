"""Chooses the reviews that a report shows, shades their words by attention, and ranks words by attention."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from unicodedata import category

import numpy as np

from bahdanau_jax.evaluation.predictor import Prediction, words_read
from bahdanau_jax.report.run_data import Run
from bahdanau_jax.runs.predictions import SAMPLE, choose_reviews

SHOWN = 8  # mistakes, and the same number of correct predictions
HIT_WORDS = 200  # most words of a correct prediction that is shown
WORDS_SHOWN = 24
LEAST_OCCURRENCES = 20  # of a word among the most attended
SHADES = 9  # shade 0 is unshaded
# Line ends, joiners (which shape Persian, Indic scripts and emoji), and what is invisible by design.
_KEPT = "\n\t\u200c\u200d\u00ad\u200b\u2060\ufeff"


def shown(run: Run, *, mistakes: bool) -> list[dict[str, Any]]:
    """Returns the most confident mistakes, or short correct predictions of the random sample."""
    rows = {name: i for i, name in enumerate(run.test.ids)}
    if mistakes:
        order = choose_reviews(run.test.probabilities, run.test.labels)[1]
        names = [run.test.ids[i] for i in order if run.test.ids[i] in run.texts]
    else:
        names = [
            name
            for name in list(run.texts)[:SAMPLE]
            if run.test.correct[rows[name]] and len(run.predicted[name].words) <= HIT_WORDS
        ]
    return [_review(run, name, rows[name]) for name in names[:SHOWN]]


def _review(run: Run, name: str, row: int) -> dict[str, Any]:
    prediction = run.predicted[name]
    return {
        "id": name,
        "true": run.label_names[run.test.labels[row]],
        "label": prediction.label,
        "probability": prediction.probability,
    } | shaded(run.texts[name], prediction)


def shaded(text: str, prediction: Prediction) -> dict[str, Any]:
    """Cuts a text into words and the text between them, and shades the words by attention.

    Returns:
      `pieces`: (text, shade, weight as a multiple of the even share, in the vocabulary) each; the shade is 0
      between words and up to the even share. `unread`: the text before the words that the model reads. `top`:
      the largest weight.
    """
    read = words_read(text, prediction)
    even = 1 / max(len(prediction.words), 1)
    at = read.spans[0][0] if read.unread else 0
    text = _printable(text)
    unread, pieces = text[:at], []
    for (start, end), weight, known in zip(read.spans, read.weights, read.known, strict=True):
        pieces.append((text[at:start], 0, 0.0, True))
        shade = max(0, round(SHADES * (float(weight) - even) / max(read.top - even, 1e-9)))
        pieces.append((text[start:end], shade, float(weight) / even, bool(known)))
        at = end
    pieces.append((text[at:], 0, 0.0, True))
    return {"pieces": pieces, "unread": unread, "top": read.top / even}


def _printable(text: str) -> str:
    """Replaces unprintable characters, also those that reverse the writing direction, one for one."""
    text = re.sub("[\r\u2028\u2029]", "\n", text.replace("\r\n", " \n"))
    return "".join(
        c if c.isprintable() or c in _KEPT or category(c) == "Zs" else "\ufffd" for c in text
    )


def heaviest_words(run: Run) -> list[dict[str, Any]]:
    """Returns the words with the most attention in the sample, in multiples of the even share."""
    found: dict[str, list[float]] = {}
    for name in list(run.texts)[:SAMPLE]:
        prediction = run.predicted[name]
        times_even = prediction.weights * len(prediction.words)
        for word, times, known in zip(
            prediction.words, times_even.tolist(), prediction.known, strict=True
        ):
            if known and word != "<start>":
                found.setdefault(word, []).append(times)
    means = [
        {"word": _printable(word), "times": float(np.mean(x)), "n": len(x)}
        for word, x in found.items()
        if len(x) >= LEAST_OCCURRENCES
    ]
    return sorted(means, key=lambda x: -x["times"])[:WORDS_SHOWN]


def disagreements(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns reviews of the sample that one of two runs classifies correctly and the other does not."""
    first, second = runs
    rows = {name: i for i, name in enumerate(first.test.ids)}
    common = [name for name in first.texts if name in second.texts]
    found = []
    for right, wrong in ((first, second), (second, first)):
        names = [
            name
            for name in common
            if right.test.correct[rows[name]]
            and not wrong.test.correct[rows[name]]
            and len(right.predicted[name].words) <= HIT_WORDS
        ]
        reviews = [[_review(run, name, rows[name]) for run in runs] for name in names[:4]]
        found.append({"right": right.name, "reviews": reviews})
    return found
