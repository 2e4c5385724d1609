"""Shows as HTML what runs make of one text: label, probabilities, and the words shaded by several measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np

from bahdanau_jax.evaluation import faithfulness
from bahdanau_jax.evaluation.faithfulness import ATTENTION, INTEGRATED, LEFT_OUT
from bahdanau_jax.evaluation.predictor import Prediction, Predictor, words_read
from bahdanau_jax.report.reviews import shaded
from bahdanau_jax.report.template import template
from bahdanau_jax.token_ids import START

CLASSES_SHOWN = 5
WORDS_SQUARED = 1_000_000  # leaving out costs the square of the length


def answers(predictors: Mapping[str, Predictor], text: str) -> Iterator[str]:
    """Yields the HTML of all runs' answers twice: with attention alone, then with the slower measures.

    Args:
      predictors: by the name to show.
      text: any text; it is escaped.
    """
    found = {name: predictor([text])[0] for name, predictor in predictors.items()}
    yield _page(predictors, text, {name: {ATTENTION: x} for name, x in found.items()})
    if text.strip():
        slower = {name: measures(predictors[name], text, x) for name, x in found.items()}
        yield _page(predictors, text, slower)


def measures(
    predictor: Predictor, text: str, prediction: Prediction
) -> dict[str, Prediction | str]:
    """The prediction with the words' shares of each measure as weights, or why it was not measured.

    The shares are magnitudes that sum to 1, as attention's weights do.
    """
    ids = predictor.vocabulary.encode_all([text], max_length=predictor.bucket_lengths[-1])
    classes = prediction.probabilities[None].argmax(axis=1)
    found: dict[str, Prediction | str] = {ATTENTION: prediction}
    obstacle = _obstacle(predictor)
    if obstacle is None:
        gradients = faithfulness.gradients(predictor, ids, classes)[1][0]
        found[INTEGRATED] = _with_shares(prediction, np.where(ids[0] == START, 0, gradients))
    else:
        found[INTEGRATED] = f"Not measured: {obstacle}"
    if len(ids[0]) ** 2 <= WORDS_SQUARED:
        whole = prediction.probabilities[None]
        changes = np.zeros(len(ids[0]))
        changes[ids[0] != START] = faithfulness.leave_one_out(predictor, ids, whole, classes)[0]
        found[LEFT_OUT] = _with_shares(prediction, changes)
    else:
        found[LEFT_OUT] = f"Not measured on texts of more than {int(WORDS_SQUARED**0.5):,} words."
    return found


_obstacle = lru_cache(faithfulness.obstacle)  # traces the model


def _with_shares(prediction: Prediction, values: np.ndarray) -> Prediction:
    sizes = np.abs(values)
    return dataclasses.replace(prediction, weights=sizes / max(sizes.sum(), 1e-30))


def _page(
    predictors: Mapping[str, Predictor],
    text: str,
    found: Mapping[str, Mapping[str, Prediction | str]],
) -> str:
    runs = []
    for name, measured in found.items():
        prediction = measured[ATTENTION]
        assert isinstance(prediction, Prediction)
        read = words_read(text, prediction)
        order = np.argsort(-prediction.probabilities, kind="stable")[:CLASSES_SHOWN]
        labels = predictors[name].label_names
        runs.append(
            {
                "name": name,
                "classes": [(labels[i], float(prediction.probabilities[i])) for i in order],
                "words": len(read.spans),
                "unread": read.unread,
                # The words that the model does not read would be sent back for each measure.
                "measured": {
                    measure: x if isinstance(x, str) else shaded(text, x) | {"unread": ""}
                    for measure, x in measured.items()
                },
            }
        )
    return template("answer.html").render(runs=runs, empty=not text.strip())
