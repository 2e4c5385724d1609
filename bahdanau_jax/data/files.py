"""Loads labelled texts of your own: CSV, JSON, Parquet and others, or a folder for each class.

A file is read through once, which finds its faults and copies the texts to a memory-mapped Arrow file. Only
the place, label and hash of each text stay in memory (28 bytes).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bahdanau_jax.data.arrow_files import from_arrow
from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.hold_out import (
    check_size,
    choose_by_class,
    hashes_of,
    refuse_fold,
    rows_of_fold,
    tenth,
)
from bahdanau_jax.data.objects import from_objects
from bahdanau_jax.data.open_file import one_line_errors
from bahdanau_jax.data.parts import ROW, Part
from bahdanau_jax.data.record_batches import Record, RecordBatch, in_batches
from bahdanau_jax.data.sniff import Layout, check_encoding, guess_encoding, sniff
from bahdanau_jax.data.tables import Columns, from_table
from bahdanau_jax.errors import InputError

UNLABELLED = ("unsup", "unsupervised", "unlabeled", "unlabelled")
_OF_SYSTEMS = ("__MACOSX", "Thumbs.db", "desktop.ini")
PARTS = {"train": 0, "test": 1, "validation": 2, "valid": 2, "val": 2, "dev": 2}


def load_files(
    path: str,
    *,
    validation_path: str = "",
    test_path: str = "",
    text: str = "text",
    label: str = "label",
    group: str = "",
    id: str = "",
    validation_size: int = 0,
    validation_fold: int = 0,
    test_size: int = 0,
    format: str = "",
    header: str = "",
    delimiter: str = "",
    quoting: str = "",
    encoding: str = "",
    bad_bytes: str = "replace",
) -> Dataset:
    """Loads labelled texts from files or folders.

    If there is no test or validation path, texts are taken out of the training texts by their hashes: first
    test, then validation, each class by its share. The choice does not depend on their order, copies of a
    text stay together, and so do texts of one group. Each class keeps a training text.

    The classes are the labels of the training texts, sorted as numbers if all are integers, otherwise as
    texts. Texts without a label can be read as unlabelled ones. `Dataset.notes` says how a file was read and
    counts what was changed or left out.

    Args:
      path: a file or a folder, as docs/data.md describes them. A folder with a folder `train` holds all
        parts.
      validation_path, test_path: the same, for the other splits. "": take them out of the training texts.
      text, label, group, id: columns or fields by name, or by number from 1. `text` may be several, separated
        by commas.
      validation_size, test_size: number of texts to take out. 0: a tenth of the training texts.
      validation_fold: which so many texts: fold 1 has none of those of fold 0, and so on.
      format, header, delimiter, quoting, encoding: how a file is written. "": the file decides.
      bad_bytes: "replace" reads bytes that are not text as U+FFFD, "refuse" makes them an error.

    Raises:
      DataNotFound: a file does not exist.
      InputError: a column is missing, a quote is not closed, a text or a label is something else, or a label
        does not occur in the training texts. Names the line.

    Example::

        load_files("reviews.csv", text="body", label="stars").label_names    # ("1", "2", "3", "4", "5")
    """
    if not path:
        raise InputError("config.data.path is empty; expected a file or a folder of texts")
    path, test_path, validation_path = _parts_of_folder(path, test_path, validation_path)
    paths = [Path(p).expanduser() for p in (path, validation_path, test_path) if p]
    # An id names file and line. The file's name alone is enough if no two files share it.
    plain = len({p.name for p in paths}) == len(paths)
    columns = Columns(text, label, group, id)
    layout = Layout(format, header, delimiter, quoting, check_encoding(encoding))

    def read(given: str, classes: Sequence[str]) -> Part:
        file = Path(given).expanduser()
        with one_line_errors(file):
            known = None if file.is_dir() else sniff(file, layout)
            row = "" if known is None else ROW.get(known.format, "row")
            name = file.name if plain else given
            part = Part(name, row, label, classes, refuse=bad_bytes == "refuse", text=text)
            if known is None:
                part.read(in_batches(_from_folder(file, encoding, part)))
            else:
                part.read(from_file(file, columns, known, part))
        return part

    train = read(path, ())
    # All files are read now, so their faults are found before training.
    others = [
        read(given, train.classes) if given else None for given in (test_path, validation_path)
    ]
    return assemble(
        Path(path).stem or path,
        train,
        *others,
        test_size=test_size,
        validation_size=validation_size,
        validation_fold=validation_fold,
        test_title=f"texts of {Path(test_path).name}" if test_path else "",
    )


def assemble(
    name: str,
    train: Part,
    test: Part | None,
    validation: Part | None,
    *,
    test_size: int,
    validation_size: int,
    validation_fold: int,
    test_title: str = "",
) -> Dataset:
    """Makes a data set of its parts; takes a missing part out of the training texts."""
    whole, left, notes = train.examples, np.arange(len(train.examples)), list(train.notes)

    def part(found: Part | None, size: int, field: str, fold: int = 0) -> Examples:
        nonlocal left
        if found is not None:
            refuse_fold(fold)
            notes.extend(found.notes)
            return found.examples
        if size:
            check_size(field, size, len(left))
        hashes, labels = hashes_of(whole.texts)[left], whole.labels[left]
        groups = None if train.groups is None else train.groups[left]

        def choose(rows: np.ndarray) -> np.ndarray:
            of_rows = None if groups is None else groups[rows]
            others = np.delete(labels, rows)  # earlier folds, which are learned from
            return choose_by_class(
                hashes[rows], labels[rows], size or tenth(len(whole)), of_rows, others
            )

        chosen = rows_of_fold(len(left), fold, choose)
        held_out, left = left[chosen], left[~chosen]
        return whole.take(held_out)

    tested = part(test, test_size, "config.data.test_size")
    validated = part(
        validation, validation_size, "config.data.validation_size", fold=validation_fold
    )
    unlabelled = [x.unlabelled for x in (train, test, validation) if x is not None]
    cut = [field for field, found in (("test", test), ("validation", validation)) if found is None]
    if cut:
        kept = "copies" if train.groups is None else "copies and groups"
        parts = " and ".join(cut) + (" are" if len(cut) > 1 else " is")
        notes.append(f"{parts} cut out of train by class and hash; {kept} stay on one side")
    return Dataset(
        name=name,
        label_names=train.classes,
        train=whole.take(left),
        validation=validated,
        read_test=lambda: tested,
        test_description=f"{len(tested):,} {test_title or f'texts cut out of {train.name}'}",
        read_unlabelled=lambda: [text for texts in unlabelled for text in texts],
        notes=tuple(notes),
        known_test=tested,
    )


def from_file(path: Path, columns: Columns, layout: Layout, part: Part) -> Iterator[RecordBatch]:
    """The records of a file, from `sniff`ed to read."""
    if layout.format in ("csv", "fasttext"):
        described, batches = from_table(path, columns, layout, part.count)
    else:
        read = from_objects if layout.format in ("json", "jsonl") else from_arrow
        described, batches = read(path, columns, layout)
    part.note(f"reading {path.name} as {layout}; {described}")
    if layout.stray:
        part.note(f"{path.name}: carriage returns inside lines, read as blanks: {layout.stray:,}")
    yield from batches


def _from_folder(path: Path, encoding: str, part: Part) -> Iterator[Record]:
    """The files of a folder that has a folder for each label, as records."""
    labels = _folders(path)
    if not labels:
        raise InputError(f"{path} has no folders; expected one for each class")
    part.note(f"reading {path.name} as a folder of classes: {', '.join(labels[:12])}")
    for label in labels:
        for name in sorted(x.name for x in os.scandir(path / label)):
            if name.startswith(".") or name in _OF_SYSTEMS:
                continue
            file, place = path / label / name, f"{label}/{name}"
            if file.is_dir():
                part.count("folders inside a class, left out", place)
                continue
            with one_line_errors(file):
                content = file.read_bytes()
                found = encoding or guess_encoding([content], f"{path.name}/{place}")
                if found == "windows-1252":
                    part.count("texts that are not UTF-8, read as windows-1252", place)
                text = content.decode(found, "surrogateescape")
            yield place, [text], None if label in UNLABELLED else label, None, None


def _folders(path: Path) -> list[str]:
    names = (x.name for x in os.scandir(path) if x.is_dir() and x.name not in _OF_SYSTEMS)
    return sorted(name for name in names if not name.startswith("."))


def _parts_of_folder(path: str, test_path: str, validation_path: str) -> list[str]:
    """Paths of train, test and validation; a folder such as aclImdb has a folder for each."""
    found, folder = [path, test_path, validation_path], Path(path).expanduser()
    if not folder.is_dir():
        return found
    names = _folders(folder)
    if "train" not in names or not set(names) <= set(PARTS):
        return found
    found[0] = ""
    for name in names:
        found[PARTS[name]] = found[PARTS[name]] or str(folder / name)
    return found
