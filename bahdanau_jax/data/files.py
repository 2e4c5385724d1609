"""Loads labelled texts of your own: CSV, TSV, JSON lines, or a folder for each class.

A file is read through once, which finds its faults. Only the place, label and hash of each text stay in memory
(28 bytes); a text is read again when it is asked for.
"""

from __future__ import annotations

import array
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from bahdanau_jax.data.dataset import Dataset, Examples, choose_by_hash, hash_of, tenth
from bahdanau_jax.data.lazy_texts import FileTexts, FolderTexts, Names
from bahdanau_jax.errors import InputError

MOST_CLASSES = 1_000  # a column with more values does not hold labels
_SHOWN = 8  # names in a message


def load_files(
    path: str,
    *,
    validation_path: str = "",
    test_path: str = "",
    text: str = "text",
    label: str = "label",
    validation_size: int = 0,
    test_size: int = 0,
) -> Dataset:
    """Loads labelled texts from files or folders.

    If there is no test or validation path, texts are taken out of the training texts by their hashes: first
    test, then validation. The choice does not depend on their order, and copies of a text stay together.

    The classes are the labels of the training texts, sorted as numbers if all are integers, otherwise as
    texts.

    Args:
      path: a .csv, .tsv or .jsonl file in UTF-8, or a folder with a folder for each class, which holds a file
        for each text.
      validation_path, test_path: the same, for the other splits. "": take them out of the training texts.
      text, label: columns or fields. A label is a text or an integer.
      validation_size, test_size: number of texts to take out. 0: a tenth of the training texts.

    Raises:
      DataNotFound: a file does not exist.
      InputError: a column is missing, a quote is not closed, a text or a label is empty, the encoding is not
        UTF-8, or a label does not occur in the training texts. Names the line.

    Example::

        load_files("reviews.csv", text="body", label="stars").label_names    # ("1", "2", "3", "4", "5")
    """
    if not path:
        raise InputError("config.data.path is empty; expected a file or a folder of texts")
    paths = [Path(p).expanduser() for p in (path, validation_path, test_path) if p]
    # An id names file and line. The file's name alone is enough if no two files share it.
    plain = len({p.name for p in paths}) == len(paths)

    def read(given: str, classes: Sequence[str]) -> _Part:
        file = Path(given).expanduser()
        texts = FolderTexts(file) if file.is_dir() else FileTexts(file, text, label)
        return _Part(texts, file.name if plain else given, classes)

    part = read(path, ())
    names = part.classes
    if not 2 <= len(names) <= MOST_CLASSES:
        raise InputError(
            f"{path}: {label!r} has {len(names):,} values ({_list(names)}); expected 2 to {MOST_CLASSES:,}"
        )
    whole, left = part.examples, np.arange(len(part.hashes))

    def take_out(size: int, field: str) -> Examples:
        nonlocal left
        chosen = choose_by_hash(part.hashes[left], size or tenth(len(whole)), field)
        held_out, left = left[chosen], left[~chosen]
        return whole.take(held_out)

    # All files are read now, so their faults are found before training.
    if test_path:
        test = read(test_path, names).examples
        description = f"{len(test):,} texts of {Path(test_path).name}"
    else:
        test = take_out(test_size, "test_size")
        description = f"{len(test):,} texts cut out of {Path(path).name}"
    if validation_path:
        validation = read(validation_path, names).examples
    else:
        validation = take_out(validation_size, "validation_size")
    return Dataset(
        name=Path(path).stem or path,
        label_names=names,
        train=whole.take(left),
        validation=validation,
        read_test=lambda: test,
        test_description=description,
    )


class _Part:
    """The texts of a file or folder, read through and checked.

    Args:
      texts: the texts.
      name: of the file or folder, for ids.
      classes: the labels that may occur; none: any.

    Attributes:
      examples: the texts, which are read when they are asked for.
      hashes: uint64 [n], hashes of the texts.
      classes: those given, or else those found.
    """

    def __init__(self, texts: FileTexts | FolderTexts, name: str, classes: Sequence[str]):
        labels, hashes = array.array("i"), array.array("Q")
        known = {label: i for i, label in enumerate(classes)}
        for where, text, label in texts.read_through():
            if not text.strip():
                raise InputError(f"{where} has an empty text; expected at least a word")
            if not label.strip():
                raise InputError(f"{where} has an empty label; expected a text or an integer")
            if classes and label not in known:
                raise InputError(
                    f"{where} has the label {label[:40]!r}, which the training texts do not have; "
                    f"expected one of {_list(classes)}"
                )
            labels.append(known.setdefault(label, len(known)))
            hashes.append(hash_of(text))
        if not labels:
            raise InputError(f"{name} holds no texts")
        self.hashes = np.array(hashes, np.uint64)
        self.classes = tuple(classes) or _sort_labels(known)
        numbers = np.empty(len(known), np.int32)
        numbers[[known[label] for label in self.classes]] = np.arange(len(known))
        found = np.array(labels, np.int32)
        self.examples = Examples(texts, numbers[found], Names(name, texts.places))


def _sort_labels(labels: Collection[str]) -> tuple[str, ...]:
    """Sorts labels as numbers if all are integers, otherwise as texts.

    Example:
      >>> _sort_labels(["10", "-1", "9"]), _sort_labels(["10", "9", "a"])
      (('-1', '9', '10'), ('10', '9', 'a'))
    """
    numbers = all(label.removeprefix("-").isdecimal() for label in labels)
    return tuple(sorted(labels, key=int if numbers else str))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(name[:20] for name in names[:_SHOWN])
    return shown + (", ..." if len(names) > _SHOWN else "")
