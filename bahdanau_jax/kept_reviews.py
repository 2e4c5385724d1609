"""reviews.jsonl: the test reviews whose texts a run keeps, so that its report needs no data set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bahdanau_jax.errors import InputError
from bahdanau_jax.sources import Examples
from bahdanau_jax.workdir import write_text

SAMPLE = 1_000  # drawn at random: the same reviews for every run on a data set
MISTAKES = 24  # besides these, the most confident ones of all


def choose(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]
) -> tuple[np.ndarray, np.ndarray]:
    """Which reviews are kept: a random sample, in random order, and the most confident mistakes.

    Returns:
      the rows of the sample, and those of the mistakes, most confident first; a review may be in both.
    """
    sample = np.random.default_rng(0).permutation(len(labels))[:SAMPLE]
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return sample, wrong[order[:MISTAKES]]


def write_reviews(workdir: Path, test: Examples, probabilities: np.ndarray) -> None:
    """Keeps the chosen ones of the test split, of which `probabilities` [n, classes] are the run's."""
    sample, mistakes = choose(probabilities, test.labels)
    rows = list(dict.fromkeys([*sample.tolist(), *mistakes.tolist()]))
    lines = [json.dumps({"id": test.ids[i], "text": test.texts[i]}) + "\n" for i in rows]
    write_text(workdir / "reviews.jsonl", "".join(lines))


def read_reviews(workdir: Path) -> dict[str, str]:
    """Texts by id, in the file's order; none where the run kept none.

    Raises:
      InputError: the file is damaged; names the line.
    """
    file = workdir / "reviews.jsonl"
    texts: dict[str, str] = {}
    if not file.exists():
        return texts
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            record: Any = json.loads(line)
            texts[str(record["id"])] = str(record["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: line {number} is {line[:40]!r}; expected a review's id and text"
            ) from error
    return texts
