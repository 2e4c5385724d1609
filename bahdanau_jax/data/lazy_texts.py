"""Texts that stay in their files, and are read again when they are asked for."""

from __future__ import annotations

import array
import copy
import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.data.dataset import take
from bahdanau_jax.data.file_formats import DELIMITERS, as_text, format_of, not_utf8, read_records
from bahdanau_jax.errors import DataNotFound, InputError


class FileTexts(Sequence[str]):
    """The texts of a .csv, .tsv or .jsonl file. Call `read_through` first.

    Attributes:
      places: int64 [n], the line where each record begins.
    """

    def __init__(self, path: Path, text: str, label: str):
        self._path, self._text, self._label = path, text, label
        self._form = format_of(path.name)
        if self._form == "txt":
            raise InputError(f"{path} has no labels; expected .csv, .tsv, .jsonl or a folder")
        self._open = _OpenFile(path)

    def read_through(self) -> Iterator[tuple[str, str, str]]:
        """Yields the place for messages, text and label of each record; then texts can be indexed.

        Raises:
          InputError: as `file_formats.read_records`, or a text or label has another type.
        """
        lines, ends = array.array("q"), array.array("q")
        counted, name = _CountedLines(self._open), str(self._path)
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
        """Returns where the first record begins, and the text's position or name in a record."""
        if self._form == "jsonl":
            return 0, self._text
        counted = _CountedLines(self._open)
        rows = csv.reader(
            (line.decode("utf-8-sig") for line in counted), delimiter=DELIMITERS[self._form]
        )
        header = next(row for row in rows if row)
        return counted.position, header.index(self._text)

    def take(self, indices: np.ndarray) -> FileTexts:
        """Returns the texts at `indices`, still unread."""
        taken = copy.copy(self)
        taken.places = self.places[indices]
        taken._starts, taken._ends = self._starts[indices], self._ends[indices]
        return taken

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index):
        start, end = int(self._starts[index]), int(self._ends[index])
        try:
            # A record includes the blank lines before it.
            record = os.pread(self._open.number, end - start, start).decode("utf-8-sig")
            if self._form == "jsonl":
                return json.loads(record)[self._field]
            rows = csv.reader(
                io.StringIO(record, newline=""), delimiter=DELIMITERS[self._form], strict=True
            )
            return [row for row in rows if row][-1][self._field]
        except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
            raise InputError(
                f"{self._path}: line {self.places[index]} has changed since it was first read"
            ) from error


class FolderTexts(Sequence[str]):
    """The texts of a folder that has a folder for each label, which has a file for each text.

    Attributes:
      places: n file names, relative to the folder.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            labels = sorted(x.name for x in os.scandir(path) if x.is_dir() and _is_shown(x.name))
            self.places = [
                f"{label}/{name}"
                for label in labels
                for name in sorted(
                    x.name for x in os.scandir(path / label) if x.is_file() and _is_shown(x.name)
                )
            ]
        except OSError as error:
            raise _cannot_read(path, error) from error
        if not labels:
            raise InputError(f"{path} has no folders; expected one for each class")

    def read_through(self) -> Iterator[tuple[str, str, str]]:
        """Yields the place for messages, text and label of each file, in order.

        Raises:
          InputError: a file cannot be read or is not UTF-8.
        """
        for i, place in enumerate(self.places):
            yield f"{self._path / place}: line 1", self[i], place.split("/")[0]

    def take(self, indices: np.ndarray) -> FolderTexts:
        """Returns the texts at `indices`, still unread."""
        taken = copy.copy(self)
        taken.places = take(self.places, indices)
        return taken

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index):
        path = self._path / self.places[index]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _cannot_read(path, error) from error
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise not_utf8(f"{path}: line {line}", error) from error


class Names(Sequence[str]):
    """A name for each text: "reviews.csv:17" (its line) or "reviews/pos/17.txt".

    Example:
      >>> list(Names("reviews.csv", np.array([2, 4])))
      ['reviews.csv:2', 'reviews.csv:4']
    """

    def __init__(self, name: str, places: np.ndarray | list[str]):
        self._name, self._places = name, places

    def take(self, indices: np.ndarray) -> Names:
        """Returns the names at `indices`."""
        return Names(self._name, take(self._places, indices))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index):
        place = self._places[index]
        return f"{self._name}/{place}" if isinstance(place, str) else f"{self._name}:{place}"


class _OpenFile:
    """A file that stays open while any of its texts may be read."""

    def __init__(self, path: Path):
        try:
            self.number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise _cannot_read(path, error) from error

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


class _CountedLines:
    """A file's lines from its beginning, and the number of bytes in the lines read so far."""

    def __init__(self, file: _OpenFile):
        self._file, self.position = file, 0

    def __iter__(self) -> Iterator[bytes]:
        with open(self._file.number, "rb", closefd=False) as lines:
            lines.seek(0)
            for line in lines:
                self.position += len(line)
                yield line


def _is_shown(name: str) -> bool:
    return not name.startswith(".")


def _cannot_read(path: Path, error: OSError) -> InputError:
    kind = DataNotFound if isinstance(error, FileNotFoundError) else InputError
    return kind(f"{path} cannot be read: {error.strerror or error}")
