"""predictions.jsonl, the predictions of a finished run, and reviews.jsonl, some of the texts."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bahdanau_jax.data.dataset import Examples
from bahdanau_jax.errors import InputError, one_line
from bahdanau_jax.models.probabilities import probabilities
from bahdanau_jax.runs.safe_files import parse_json, read_json, write_text

SAMPLE = 1_000  # texts kept at random, the same ones for every run on a data set
MISTAKES = 24  # most confident mistakes kept besides


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of one split, in the file's order.

    Attributes:
      ids: n names, as `Examples.ids`.
      labels: int32 [n], the true ones.
      probabilities: float32 [n, classes].
      words: int [n], the number of words of each review; None if the file does not hold it.
    """

    ids: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    words: np.ndarray | None = None

    @property
    def correct(self) -> np.ndarray:
        """bool [n], whether the likeliest class is the true one."""
        return self.probabilities.argmax(axis=1) == self.labels

    @property
    def losses(self) -> np.ndarray:
        """float64 [n], the cross-entropy of each review in nats; a probability of 0 counts as 1e-12."""
        true = np.take_along_axis(self.probabilities, self.labels[:, None].astype(int), axis=1)
        return -np.log(np.maximum(true[:, 0].astype(float), 1e-12))


def write_predictions(
    path: Path,
    splits: Mapping[str, tuple[Examples, np.ndarray]],
    words: Mapping[str, Sequence[int] | np.ndarray] | None = None,
) -> None:
    """Writes one JSON line per review: split, id, label, probability of each class, number of words.

    Args:
      path: the file.
      splits: by name, the examples and their logits [n, outputs].
      words: by split, the number of words of each review, [n]. None: not written.
    """
    lines = []
    for split, (examples, logits) in splits.items():
        found = zip(examples.ids, examples.labels, np.asarray(probabilities(logits)), strict=True)
        for i, (name, label, p) in enumerate(found):
            record = {"split": split, "id": name, "label": int(label), "probabilities": p.tolist()}
            if words is not None:
                record["words"] = int(words[split][i])
            lines.append(json.dumps(record) + "\n")
    write_text(path, "".join(lines))


def read_predictions(workdir: str | Path, split: str = "test") -> Predictions:
    """The predictions of a finished run.

    Raises:
      InputError: the folder has no predictions.jsonl, the file is damaged, or it has no row of `split`.
    """
    path = Path(workdir) / "predictions.jsonl"
    ids: list[str] = []
    labels: list[int] = []
    rows: list[list[float]] = []
    words: list[int] = []

    def add(record: Any) -> None:
        if record["split"] != split:
            return
        label, row = int(record["label"]), [float(p) for p in record["probabilities"]]
        if not row or len(row) != len(rows[0] if rows else row):
            raise ValueError(f"{len(row)} probabilities")
        if not all(0 <= p <= 1 for p in row):
            raise ValueError(f"the probabilities {row!s:.60}")
        if not 0 <= label < len(row):
            raise ValueError(f"the label {label}")
        if "words" in record:
            words.append(int(record["words"]))
            if not 0 <= words[-1] < 2**31:
                raise ValueError(f"{words[-1]:.3g} words")
        ids.append(str(record["id"]))
        labels.append(label)
        rows.append(row)

    _each_line(path, add, "split, id, label and probabilities")
    if not ids:
        raise InputError(f"{path} holds no prediction of the split {split}")
    return Predictions(
        ids,
        np.array(labels, np.int32),
        np.array(rows, np.float32),
        np.array(words) if len(words) == len(ids) else None,
    )


def same_reviews(first: Predictions, second: Predictions) -> bool:
    """Whether two runs predicted the same reviews in the same order."""
    return first.ids == second.ids and np.array_equal(first.labels, second.labels)


_OTHER_TEXTS = (
    "have different texts under the same ids; expected runs on the same data (made-up texts also depend on "
    "config.seed)"
)


def check_same_data(first: str | Path, second: str | Path) -> None:
    """Checks that two finished runs, given by their folders, have the same classes and kept test texts.

    Raises:
      InputError: they differ, or a folder holds no finished run.
    """
    folders = [Path(first), Path(second)]
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} is not a run folder: it holds no config.json")
        if not (folder / "result.json").is_file():
            raise InputError(f"{folder} holds no finished run: it has no result.json")
    results = [read_json(folder / "result.json") for folder in folders]
    classes = [x.get("label_names") if isinstance(x, dict) else None for x in results]
    if classes[0] != classes[1]:
        raise InputError(
            f"{first} and {second} have the classes {classes[0]} and {classes[1]}; expected the same"
        )
    texts = [read_reviews(folder) for folder in folders]
    if any(texts[0][name] != texts[1][name] for name in texts[0].keys() & texts[1].keys()):
        raise InputError(f"{first} and {second} {_OTHER_TEXTS}")


def check_same_validation(first: Path, second: Path) -> None:
    """Checks that two runs had the same validation texts.

    Raises:
      InputError: they differ.
    """
    digests = {_validation_digest(folder / "data.json") for folder in (first, second)}
    if len(digests - {None}) > 1:
        raise InputError(f"{first} and {second} {_OTHER_TEXTS}")


def _validation_digest(file: Path) -> str | None:
    """What a run's data.json says of its validation texts; None for a baseline, which has none."""
    try:
        return str(read_json(file)["validation"]["sha256"]) if file.is_file() else None
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: expected the digest of validation") from error


def choose_reviews(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the reviews to keep: a random sample, in random order, and the most confident mistakes.

    Returns:
      the rows of the sample, and of the mistakes, most confident first. A review may be in both.
    """
    sample = np.random.default_rng(0).permutation(len(labels))[:SAMPLE]
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return sample, wrong[order[:MISTAKES]]


def write_reviews(workdir: Path, test: Examples, probabilities: np.ndarray) -> None:
    """Writes reviews.jsonl, so that the report needs no data set; `probabilities` [n, classes] of test."""
    sample, mistakes = choose_reviews(probabilities, test.labels)
    rows = list(dict.fromkeys([*sample.tolist(), *mistakes.tolist()]))
    lines = [json.dumps({"id": test.ids[i], "text": test.texts[i]}) + "\n" for i in rows]
    write_text(workdir / "reviews.jsonl", "".join(lines))


def read_reviews(workdir: Path) -> dict[str, str]:
    """Texts by id, in the file's order; empty if the run has no such file.

    Raises:
      InputError: the file is damaged; names the line.
    """
    file = workdir / "reviews.jsonl"
    texts: dict[str, str] = {}

    def add(record: Any) -> None:
        texts[str(record["id"])] = str(record["text"])

    if file.exists():
        _each_line(file, add, "a review's id and text")
    return texts


def _each_line(path: Path, add: Callable[[Any], None], expected: str) -> None:
    """Calls `add` with the JSON value of each line, and names the line if that fails."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    add(parse_json(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(
                        f"{path}: line {number} is {line[:40]!r}; expected {expected} "
                        f"({type(error).__name__}: {one_line(error)})"
                    ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
