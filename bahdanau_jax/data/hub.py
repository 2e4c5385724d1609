"""Loads data sets of the Hugging Face hub, or of a folder laid out like one, with the package `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.data.dataset import Dataset
from bahdanau_jax.data.files import PARTS, UNLABELLED, assemble
from bahdanau_jax.data.parts import Part
from bahdanau_jax.data.record_batches import RecordBatch
from bahdanau_jax.data.tables import Columns, positions, two_columns
from bahdanau_jax.errors import DataNotFound, InputError, one_line


def load_hub(
    name: str = "imdb_reviews",
    *,
    data_dir: str | None = None,
    text: str = "text",
    label: str = "label",
    group: str = "",
    id: str = "",
    validation_size: int = 0,
    validation_fold: int = 0,
    test_size: int = 0,
) -> Dataset:
    """Loads a data set with the splits that its owner gave it.

    A set without a labelled test split is tested on its validation split. Missing splits are taken out of
    train, as `files.load_files` does it. Texts with the label -1 are read as unlabelled, and so are splits
    named unsupervised.

    Args:
      name: "owner/name", "owner/name:config", or a folder. "imdb_reviews" is stanfordnlp/imdb.
      data_dir: folder for what is downloaded. None: HF_HOME, or the default of `datasets`.
      text, label, group, id: columns, as in `files.load_files`.
      validation_size: number of texts to take out of train. 0: the set's own validation split, or a tenth.
      validation_fold: which so many texts: fold 1 has none of those of fold 0, and so on.
      test_size: number of texts to take out of train if no other split has labels. 0: a tenth.

    Raises:
      DataNotFound: `datasets` is not installed, or cannot load the set.
      InputError: a column is missing, or a text or a label is something else. Names the row.

    Example::

        load_hub("stanfordnlp/imdb", validation_size=2_500).read_unlabelled()    # 50,000 texts
    """
    name = "stanfordnlp/imdb" if name == "imdb_reviews" else name
    splits = _load(name, data_dir)
    if "train" not in splits:
        raise InputError(f"{name} has the splits {', '.join(splits)}; expected one named train")
    names = splits["train"].column_names
    few = splits["train"][:200]
    rows = list(zip(*(map(str, few[column]) for column in names), strict=True))
    columns = two_columns(Columns(text, label, group, id), names, rows)
    field = names[positions(columns, names, Path(name))[1][0]]
    classes = tuple(getattr(splits["train"].features[field], "names", None) or ())
    title = Path(name.split(":")[0]).name

    def read(split: str, classes: tuple[str, ...]) -> Part:
        part = Part(f"{title}/{split}", "row", field, classes, refuse=False)
        others = [x for x in splits if split == "train" and x in UNLABELLED]
        part.read(chain.from_iterable(_batches(splits[x], columns, name) for x in (split, *others)))
        part.note(f"reading {split} of {name}; text: {columns.text}, label: {field}")
        return part

    train = read("train", classes)
    roles = {
        PARTS[x]: x for x in splits if x in PARTS and splits[x][0].get(field) not in (-1, None)
    }
    held_out = [roles[role] for role in (PARTS["validation"], PARTS["test"]) if role in roles]
    test = read(held_out[-1], train.classes) if held_out else None
    own = read(held_out[0], train.classes) if held_out[:-1] and not validation_size else None
    return assemble(
        title,
        train,
        test,
        own,
        test_size=test_size,
        validation_size=validation_size,
        validation_fold=validation_fold,
        test_title=f"texts of {title}'s {held_out[-1]} split" if held_out else "",
    )


def _load(name: str, data_dir: str | None) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise DataNotFound(
            "config.data.source is 'hub', which needs the package datasets; pip install datasets"
        ) from error
    path, _, config = (name, "", "") if Path(name).exists() else name.partition(":")
    try:
        splits: Any = datasets.load_dataset(path, config or None, cache_dir=data_dir)
        return dict(splits)
    except Exception as error:  # whatever datasets and what it needs raise
        raise DataNotFound(f"datasets cannot load {name}: {one_line(error)[:300]}") from error


def _batches(split: Any, columns: Columns, name: str) -> Iterator[RecordBatch]:
    names = split.column_names
    text, *others = positions(columns, names, Path(name))
    label, group, key = (names[found[0]] if found else None for found in others)
    classes = getattr(split.features[label], "names", None)
    row = 1
    for batch in split.iter(batch_size=1_024):
        labels = [
            None if x == -1 else classes[x] if classes and x is not None else x
            for x in batch[label]
        ]
        rows = np.arange(row, row := row + len(labels))
        texts = [batch[names[i]] for i in text]
        yield RecordBatch(rows, texts, labels, group and batch[group], key and batch[key])
