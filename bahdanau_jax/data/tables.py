"""Reads records of CSV and its kin, and of lines that begin with a label; finds the columns."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.data.csv_blocks import Rows, in_blocks, row_blocks
from bahdanau_jax.data.csv_rows import csv_rows
from bahdanau_jax.data.record_batches import RecordBatch
from bahdanau_jax.data.sniff import Layout, open_lines
from bahdanau_jax.errors import InputError

_SWALLOWED = (
    "texts that hold a line like a row (if a quote lacks its pair, set config.data.quoting=no)"
)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names or numbers (from 1) of columns; a text may be several, separated by commas. "": none.

    Texts to predict have no label.
    """

    text: str = "text"
    label: str = "label"
    group: str = ""
    id: str = ""

    def described(self) -> str:
        """As in "text: review, label: stars"."""
        return f"text: {self.text}" + (f", label: {self.label}" if self.label else "")


def from_table(
    path: Path, columns: Columns, layout: Layout, count: Callable[[str, int], object]
) -> tuple[str, Iterator[RecordBatch]]:
    """Records of CSV and its kin, and of lines that begin with a label.

    Args:
      path: the file.
      columns: what to read of a record.
      layout: how the file is written, from `sniff`.
      count: takes what is odd about a record, and its line.

    Returns:
      what is read, for people, and the records.

    Raises:
      InputError: a column is missing; from the records: as `csv_rows`.
    """

    name, delimiter = str(path), layout.delimiter
    with open_lines(path, layout) as file:
        if layout.format == "fasttext":
            rows = _label_and_text(file, name)
        else:
            quoting = layout.quoting == "yes"
            rows = csv_rows(file, name, delimiter, quoting=quoting, escape=layout.escape)
        sample = list(islice(_until_fault(rows), 200))
    if layout.format == "fasttext":
        header, names = False, ["label", "text"]
    else:
        if not sample:
            raise InputError(f"{path} is empty; expected a header with the column {columns.text!r}")
        header = layout.header == "yes"
        if not layout.header:
            header = _has_header(sample, columns)
        names = [name.strip() for name in sample[0]]
        if not header:
            names = [str(i + 1) for i in range(len(names))]
    columns = two_columns(columns, names, sample[header:])
    text, label, group, key = positions(columns, names, path, header)
    labels = {row[label[0]] for row in sample[header:]} if label else ()

    def batches() -> Iterator[RecordBatch]:
        skipped = int(header)
        blocks = row_blocks if layout.format == "csv" else _label_blocks
        for width, lines, column in blocks(path, layout):
            found = [[column(i)[skipped:] for i in part] for part in (text, label, group, key)]
            lines, skipped = lines[skipped:], 0
            # Those after which the next row does not begin a line later.
            long = np.flatnonzero(np.diff(lines, append=lines[-1:] + 2) > 1)
            for row in long.tolist() if labels else ():
                values = zip(text, (str(values[row]) for values in found[0]), strict=True)
                if any(_holds_a_row(x, i, label[0], width, labels, delimiter) for i, x in values):
                    count(_SWALLOWED, lines[row])
            texts, *others = found
            yield RecordBatch(lines, texts, *(x[0] if x else None for x in others))

    shown = "" if layout.format == "fasttext" else "header, " if header else "no header, "
    return shown + columns.described(), batches()


def _holds_a_row(
    value: str, text: int, label: int, width: int, labels: Collection[str], delimiter: str
) -> bool:
    """Whether a text of several lines holds a whole row, with one of the labels."""
    if "\n" not in value:
        return False
    first, *others = value.split("\n")[:-1]
    rows = [[""] * text + first.split(delimiter), *(line.split(delimiter) for line in others)]
    return any(len(found) == width and found[label].strip() in labels for found in rows)


def _until_fault(rows: Iterator[Any]) -> Iterator[Any]:
    """Values until a fault, which is reported when all is read."""
    try:
        for _, row in rows:
            yield row
    except InputError:
        return


def _has_header(rows: Sequence[Sequence[str]], columns: Columns) -> bool:
    first = [name.strip() for name in rows[0]]
    asked = {
        name
        for list_ in dataclasses.astuple(columns)
        for name in asked_names(list_, first)
        if list_
    }
    if any(name in first and not name.isdecimal() for name in asked):
        return True
    number = columns.label or asked_names(columns.text, first)[0]
    label = int(number) - 1 if number.isdecimal() and 1 <= int(number) <= len(first) else None
    if label is None and len(first) <= 2:
        label = _fewer_values(rows[1:]) if len(first) == 2 else 0
    return label is None or guess_header(first, rows[1:], label)


def guess_header(first: Sequence[str], rows: Sequence[Sequence[str]], label: int) -> bool:
    """Whether the first row holds names: no number, no long text, no label of later rows.

    Example:
      >>> guess_header(["review", "stars"], [["fine", "5"], ["dull", "1"]], label=1)
      True
      >>> guess_header(["5", "fine"], [["1", "dull"], ["5", "good"]], label=0)
      False
    """
    names = all(len(name.split()) <= 2 and len(name) <= 40 for name in first)
    numbers = any(re.fullmatch(r"[-\d.]+", name) for name in first)
    return names and not numbers and first[label] not in {row[label] for row in rows}


def _fewer_values(rows: Sequence[Sequence[str]]) -> int:
    """Of two columns the one with fewer different values, which holds the labels."""
    return int(len({row[1] for row in rows}) <= len({row[0] for row in rows}))


def two_columns(columns: Columns, names: list[str], rows: Sequence[Sequence[str]]) -> Columns:
    """Text and label of a file of two columns where they have other names than the default.

    Without a label, the text is the longer of one or two columns.
    """
    unnamed = columns.text == "text" and "text" not in names
    if unnamed and not columns.label and 1 <= len(names) <= 2:
        sizes = [sum(len(row[i]) for row in rows) for i in range(len(names))]
        return dataclasses.replace(columns, text=names[sizes.index(max(sizes))])
    missing = [
        role for role in ("text", "label") if getattr(columns, role) == role and role not in names
    ]
    if len(names) != 2 or not all(names) or not missing:
        return columns
    label = _fewer_values(rows)
    if "text" not in missing and columns.text in names:
        label = 1 - names.index(columns.text)
    elif "label" not in missing and columns.label in names:
        label = names.index(columns.label)
    guessed = {"text": names[1 - label], "label": names[label]}
    return dataclasses.replace(columns, **{role: guessed[role] for role in missing})


def asked_names(asked: str, names: Sequence[str]) -> list[str]:
    """The names in a list such as "title,body"; a name may itself have a comma."""
    return [asked] if asked in names else [part.strip() for part in asked.split(",")]


def positions(
    columns: Columns, names: list[str], path: Path, header: bool = True
) -> list[list[int]]:
    """The positions of text, label, group and id among the names."""
    found: list[list[int]] = []
    for asked in dataclasses.astuple(columns):
        found.append([])
        for name in asked_names(asked, names) if asked else ():
            if names.count(name) == 1:
                found[-1].append(names.index(name))
            elif name.isdecimal() and 1 <= int(name) <= len(names):
                found[-1].append(int(name) - 1)
            else:
                many = "more than one" if name in names else "no"
                if header:
                    its = f"its columns are {', '.join(names)} (with config.data.header=no, numbers from 1)"
                else:
                    its = f"it has no header; expected a number from 1 to {len(names)}"
                raise InputError(f"{path} has {many} column {name!r}; {its}")
        if len(found) > 1 and len(found[-1]) > 1:
            raise InputError(
                f"{path}: {asked!r} are several columns; expected one for all but text"
            )
    return found


def _label_blocks(path: Path, layout: Layout) -> Iterator[Rows]:
    with open_lines(path, layout) as file:
        yield from in_blocks(_label_and_text(file, str(path)))


def _label_and_text(lines: Iterable[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """Label and text of lines such as "__label__2 a fine film"; fastText also writes labels last."""
    marked = False  # whether labels begin with __label__, so that other lines have none
    for number, line in enumerate(lines, start=1):
        label, _, text = line.strip().partition(" ")
        before, _, last = line.strip().rpartition(" ")
        if last.startswith("__label__") and not label.startswith("__label__"):
            label, text = last, before
        marked = marked or label.startswith("__label__")
        if marked and label and not label.startswith("__label__"):
            label, text = "", line.strip()
        if text.startswith("__label__"):
            raise InputError(f"{name}: line {number} has several labels; expected one")
        if label or text:
            yield number, [label, text]
