"""One's own labelled texts: CSV, TSV, JSON lines, or a folder for each class; two or more classes.

A file is read through once, which finds what is wrong with it; of each record only its place, its label and a
hash of its text stay in memory (28 bytes). A text is read again when it is asked for.
"""

from __future__ import annotations

import array
import copy
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.errors import DataNotFound, InputError
from bahdanau_jax.sources import Dataset, Examples, choose_by_hash, hash_of, tenth
from bahdanau_jax.text_files import as_text, format_of, read_records

MOST_CLASSES = 1_000  # more are a column that holds something else
_SHOWN = 8  # names in a message
_DELIMITERS = {"csv": ",", "tsv": "\t"}


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
    """Labelled texts from files or folders.

    What is not given is cut out of the training part: first test, then validation, the texts with the
    smallest hashes (BLAKE2b). So the same texts are held out whatever their order, and copies of one text
    stay together.

    The classes are the labels of the training part, in the order of their numbers where all are integers,
    else of the alphabet.

    Args:
      path: a .csv, .tsv or .jsonl file in UTF-8, or a folder with a folder for each class, whose files are a
        text each.
      validation_path, test_path: the same, of the other parts; "": cut.
      text, label: columns or fields. A label is a text or an integer.
      validation_size, test_size: of the parts that are cut; 0: a tenth of what is there.

    Raises:
      DataNotFound: there is no such file.
      InputError: a column is missing, a quote is not closed, a text or a label is empty, the encoding is
        another, or a label is not one of the training part's: naming the line.

    Example::

        load_files("reviews.csv", text="body", label="stars").label_names    # ("1", "2", "3", "4", "5")
    """
    if not path:
        raise InputError("config.data.path is empty; expected a file or a folder of texts")
    paths = [Path(p).expanduser() for p in (path, validation_path, test_path) if p]
    # Texts are named by file and line; the file's last name will do where it is the only one.
    plain = len({p.name for p in paths}) == len(paths)

    def read(of: str, classes: Sequence[str]) -> _Part:
        file = Path(of).expanduser()
        name = file.name if plain else of
        if file.is_dir():
            return _Part(_FolderTexts(file), name, classes)
        return _Part(_FileTexts(file, text, label), name, classes)

    part = read(path, ())
    names = part.classes
    if not 2 <= len(names) <= MOST_CLASSES:
        raise InputError(
            f"{path}: {label!r} has {len(names):,} values ({_listed(names)}); expected 2 to {MOST_CLASSES:,}"
        )
    whole, left = part.examples, np.arange(len(part.hashes))

    def cut(size: int, field: str) -> np.ndarray:
        nonlocal left
        hashes = part.hashes[left]
        chosen = choose_by_hash(hashes, size or tenth(len(whole)), field)
        held_out, left = left[chosen], left[~chosen]
        return held_out

    # Whatever is wrong with the other parts is found before anything is trained.
    if test_path:
        test = read(test_path, names).examples
        about = f"{len(test):,} texts of {Path(test_path).name}"
    else:
        test = whole.take(cut(test_size, "test_size"))
        about = f"{len(test):,} texts cut out of {Path(path).name}"
    if validation_path:
        validation = read(validation_path, names).examples
    else:
        validation = whole.take(cut(validation_size, "validation_size"))
    return Dataset(
        name=Path(path).stem or path,
        label_names=names,
        train=whole.take(left),
        validation=validation,
        read_test=lambda: test,
        test_description=about,
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:20] for name in names[:_SHOWN])
    return shown + (", ..." if len(names) > _SHOWN else "")


class _Part:
    """A file or folder, read through.

    Attributes:
      examples: its texts, read when they are asked for.
      hashes: uint64 [n], of the texts.
      classes: those given; where none are, those found.
    """

    def __init__(self, texts: _FileTexts | _FolderTexts, name: str, classes: Sequence[str]):
        labels, hashes, known = array.array("i"), array.array("Q"), dict[str, int]()
        known.update((label, i) for i, label in enumerate(classes))
        for where, text, label in texts.read_through():
            if not text.strip():
                raise InputError(f"{where} has an empty text; expected at least a word")
            if not label.strip():
                raise InputError(f"{where} has an empty label; expected a text or an integer")
            if label not in known:
                if classes:
                    raise InputError(
                        f"{where} has the label {label[:40]!r}, which the training part does not have; "
                        f"expected one of {_listed(classes)}"
                    )
                known[label] = len(known)
            labels.append(known[label])
            hashes.append(hash_of(text))
        self.hashes = np.array(hashes, np.uint64)
        found = np.array(labels, np.int32)
        if not len(found):
            raise InputError(f"{name} holds no texts")
        self.classes = tuple(classes) or tuple(sorted(known, key=_by_number(known)))
        numbers = np.empty(len(known), np.int32)
        numbers[[known[label] for label in self.classes]] = np.arange(len(known))
        self.examples = Examples(texts, numbers[found], _Names(name, texts.places))


def _by_number(labels: Iterable[str]) -> Callable[[str], Any]:
    numbers = all(label.removeprefix("-").isdecimal() for label in labels)
    return int if numbers else str


class _Names(Sequence[str]):
    """What each text is called: "reviews.csv:17", by its line, or "reviews/pos/17.txt"."""

    def __init__(self, name: str, places: Any):
        self._name, self._places = name, places

    def take(self, indices: Any) -> _Names:
        """Those at `indices`."""
        return _Names(self._name, _taken(self._places, indices))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index):
        place = self._places[index]
        return f"{self._name}/{place}" if isinstance(place, str) else f"{self._name}:{place}"


def _taken(places: Any, indices: Any) -> Any:
    return places[indices] if isinstance(places, np.ndarray) else [places[i] for i in indices]


class _FileTexts(Sequence[str]):
    """The texts of a file, each read from its place in it.

    Attributes:
      places: int64 [n], the line that each record begins at.
    """

    def __init__(self, path: Path, text: str, label: str):
        self._path, self._text, self._label = path, text, label
        self._form = format_of(path.name)
        if self._form == "txt":
            raise InputError(f"{path} has no labels; expected .csv, .tsv, .jsonl or a folder")
        self._open = _OpenFile(path)

    def read_through(self) -> Iterator[tuple[str, str, str]]:
        """(where, text, label) of each record, in order; afterwards each can be had by its number."""
        lines, ends = array.array("q"), array.array("q")
        counted, name = _Counted(self._open), str(self._path)
        for line, (text, label) in read_records(
            counted, name=name, form=self._form, columns=[self._text, self._label]
        ):
            lines.append(line)
            ends.append(counted.position)
            where = f"{name}: line {line}"
            if type(label) not in (str, int):
                raise InputError(
                    f"{where} has {str(label)[:40]} in {self._label!r}; expected a text or an integer"
                )
            yield where, as_text(text, name, line, self._text), str(label)
        self.places, self._ends = np.array(lines, np.int64), np.array(ends, np.int64)
        begin, self._field = self._read_header()
        self._starts = np.concatenate([[begin], self._ends])[: len(lines)]

    def _read_header(self) -> tuple[int, Any]:
        """Where the first record begins, and by what a record's text is found in it."""
        if self._form == "jsonl":
            return 0, self._text
        counted = _Counted(self._open)
        rows = csv.reader(
            (line.decode("utf-8-sig") for line in counted), delimiter=_DELIMITERS[self._form]
        )
        header = next(row for row in rows if row)
        return counted.position, header.index(self._text)

    def take(self, indices: Any) -> _FileTexts:
        """Those at `indices`, still unread."""
        taken = copy.copy(self)
        taken.places, taken._starts, taken._ends = (
            x[indices] for x in (self.places, self._starts, self._ends)
        )
        return taken

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index):
        start, end = int(self._starts[index]), int(self._ends[index])
        try:
            # Blank lines before it are part of the record.
            record = os.pread(self._open.number, end - start, start).decode("utf-8-sig")
            if self._form == "jsonl":
                return json.loads(record)[self._field]
            rows = csv.reader(
                io.StringIO(record, newline=""), delimiter=_DELIMITERS[self._form], strict=True
            )
            return [row for row in rows if row][-1][self._field]
        except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
            raise InputError(
                f"{self._path}: line {self.places[index]} is not what it was at first"
            ) from error


class _OpenFile:
    """A file that stays open as long as some of its texts may be asked for."""

    def __init__(self, path: Path):
        try:
            self.number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise _not_found(path, error) from error

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


class _Counted:
    """A file's lines from its beginning, and the bytes of those that were read."""

    def __init__(self, file: _OpenFile):
        self._file, self.position = file, 0

    def __iter__(self) -> Iterator[bytes]:
        with open(self._file.number, "rb", closefd=False) as lines:
            lines.seek(0)
            for line in lines:
                self.position += len(line)
                yield line


class _FolderTexts(Sequence[str]):
    """The texts of a folder's folders, a file each; the folders' names are the labels.

    Attributes:
      places: n file names, from the folder on.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            classes = sorted(x.name for x in os.scandir(path) if x.is_dir() and _is_shown(x.name))
            self.places: Any = [
                f"{label}/{name}"
                for label in classes
                for name in sorted(
                    x.name for x in os.scandir(path / label) if x.is_file() and _is_shown(x.name)
                )
            ]
        except OSError as error:
            raise _not_found(path, error) from error
        if not classes:
            raise InputError(f"{path} has no folders; expected one for each class")

    def read_through(self) -> Iterator[tuple[str, str, str]]:
        """(where, text, label) of each file, in order."""
        for i, place in enumerate(self.places):
            yield f"{self._path / place}: line 1", self[i], place.split("/")[0]

    def take(self, indices: Any) -> _FolderTexts:
        """Those at `indices`, still unread."""
        taken = copy.copy(self)
        taken.places = _taken(self.places, indices)
        return taken

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index):
        path = self._path / self.places[index]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _not_found(path, error) from error
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise InputError(
                f"{path}: line {line} is not UTF-8 (byte {content[error.start]:#04x}); expected a file in UTF-8"
            ) from error


def _is_shown(name: str) -> bool:
    return not name.startswith(".")


def _not_found(path: Path, error: OSError) -> Exception:
    kind = DataNotFound if isinstance(error, FileNotFoundError) else InputError
    return kind(f"{path} cannot be read: {error.strerror or error}")
