"""Texts of a file or folder, checked as they are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from bahdanau_jax.data.arrow_texts import ArrowTexts, ArrowWriter, Names
from bahdanau_jax.data.dataset import Examples
from bahdanau_jax.data.hold_out import hash_of
from bahdanau_jax.data.objects import as_text, shown
from bahdanau_jax.data.record_batches import Column, RecordBatch, distinct, is_text
from bahdanau_jax.data.sniff import NOT_TEXT
from bahdanau_jax.errors import InputError

pc: Any = pyarrow.compute  # which makes its functions when it is imported

# What messages call a record of a format.
ROW = {"csv": "line", "fasttext": "line", "jsonl": "line", "txt": "line"}
MOST_CLASSES = 1_000  # a column with more values does not hold labels
_SHOWN = 8  # names in a message
_LINE_END = pa.scalar("\n", pa.large_string())
_WHOLE = re.compile(r"(-?\d+)\.0+")


class Part:
    """The texts of a file or folder. `read` reads and checks them.

    Args:
      name: of the file or folder, for ids and messages.
      row: what a record is called in messages: "line" or "row".
      label: the column of labels, for messages.
      classes: the labels that may occur; none: any.
      refuse: whether bytes that are not text are an error.
      text: the column of texts, for messages.

    Attributes:
      examples: the labelled texts.
      unlabelled: the other texts.
      groups: uint64 [n], of their groups, or None.
      classes: those given, or else those found, sorted as numbers if all are integers.
    """

    examples: Examples
    unlabelled: ArrowTexts
    groups: np.ndarray | None

    def __init__(
        self,
        name: str,
        row: str,
        label: str,
        classes: Sequence[str],
        *,
        refuse: bool,
        text: str = "text",
    ):
        self.name, self.classes = name, tuple(classes)
        self._row, self._label_field, self._refuse = row, label, refuse
        self._text_field = text
        self._notes: list[str] = []
        self._counts: dict[str, tuple[int, Any]] = {}  # what was changed: how often, first where

    def note(self, line: str) -> None:
        """Adds a line to `notes`."""
        self._notes.append(line)

    def count(self, what: str, place: int | str, times: int = 1) -> None:
        """Counts texts of a batch that were changed or left out, the first of which is at `place`."""
        count, first = self._counts.get(what, (0, place))
        self._counts[what] = count + times, min(first, place)

    def count_empty(self, texts: pa.LargeStringArray, places: np.ndarray, what: str) -> Any:
        """Counts empty texts, and returns which they are."""
        empty = pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts))
        if empty.true_count:
            self.count(f"empty texts, {what}", places[np.asarray(empty)][0], empty.true_count)
        return empty

    @property
    def notes(self) -> list[str]:
        """How the texts were read, and what was changed or left out, in the order of the first ones."""
        return self._notes + [
            f"{self.name}: {what}: {count:,} (the first: {f'{self._row} {first}'.strip()})"
            for what, (count, first) in sorted(self._counts.items(), key=lambda x: x[1][1])
        ]

    def read(self, batches: Iterable[RecordBatch]) -> None:
        """Reads and checks the texts.

        Raises:
          InputError: a text or a label is something else, or there are none. Names the line.
        """
        numbers, groups, places = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
        known = {label: i for i, label in enumerate(self.classes)}
        with ArrowWriter() as texts, ArrowWriter() as ids:
            for batch in batches:
                whole = self.texts_of(batch)
                empty = self.count_empty(whole, batch.places, "left out")
                if empty.true_count:
                    rows = np.asarray(empty)
                    whole, batch = whole.filter(pc.invert(empty)), batch.filter(~rows)
                numbers.append(self._numbers(batch, known))
                texts.append(whole)
                places.append(batch.places)
                groups.append(_hashes(batch.groups))
                ids.append(self._ids(batch))
            found = _concatenate(numbers, np.int32)
            hashes = _concatenate(groups, np.uint64)
            if {len(hashes), len(ids)} - {0, len(found)}:
                raise InputError(
                    f"{self.name}: some texts have no group or no id; expected all to have"
                )
            stored = texts.texts()
            named = ids.texts() if len(ids) else Names(self.name, _concatenate(places, int))
        if isinstance(named, ArrowTexts) and len(np.unique(named.hashes)) != len(named):
            raise InputError(f"{self.name}: two texts have the same id; expected distinct ones")
        self._sort_classes(known)
        rows = np.flatnonzero(found >= 0)
        if not len(rows):
            raise InputError(f"{self.name} holds no texts" + " with labels" * bool(len(found)))
        order = np.empty(len(known), np.int32)
        order[[known[label] for label in self.classes]] = np.arange(len(known))
        self.examples = Examples(stored.take(rows), order[found[rows]], named.take(rows))
        self.unlabelled = stored.take(np.flatnonzero(found < 0))
        self.groups = hashes[rows] if len(hashes) else None

    def _sort_classes(self, known: Collection[str]) -> None:
        self.classes = self.classes or sort_labels(known)
        if len(self.classes) > MOST_CLASSES:
            raise InputError(
                f"{self.name}: {self._label_field!r} has {len(known):,} values ({_list(self.classes)}); "
                f"expected 2 to {MOST_CLASSES:,}"
            )

    def _where(self, place: int | str) -> str:
        return f"{self.name}: {self._row} {place}" if self._row else f"{self.name}/{place}"

    def texts_of(self, batch: RecordBatch) -> pa.LargeStringArray:
        """The texts of records, "" for a null. Several columns are joined by line breaks."""
        field = self._text_field
        columns = [self._strings(column, field, batch.places) for column in batch.texts]
        if len(columns) == 1:
            return columns[0]
        # Empty ones are left out, as nulls are.
        columns = [pc.if_else(pc.equal(column, ""), None, column) for column in columns]
        return pc.binary_join_element_wise(*columns, _LINE_END, null_handling="skip")

    def _strings(self, column: Column, field: str, places: np.ndarray) -> pa.LargeStringArray:
        """Texts without what UTF-8 cannot hold; "" for a null."""
        if isinstance(column, pa.Array):
            if is_text(column):
                return column.cast(pa.large_string()).fill_null("")
            column = column.to_pylist()
        else:
            try:
                return pa.array(column, pa.large_string()).fill_null("")
            except (pa.ArrowException, UnicodeError):
                pass  # one of them is no text, or holds bad bytes
        cleaned = map(self._clean, column, [field] * len(column), places)
        return pa.array(list(cleaned), pa.large_string())

    def _clean(self, value: Any, field: str, place: int | str, times: int = 1) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            as_text(value, self._where(place), field)
        if value.isascii() or not NOT_TEXT.search(value):
            return value
        if self._refuse:
            raise InputError(
                f"{self._where(place)} has bytes in {field!r} that are not text in the file's encoding; "
                "expected another config.data.encoding, or config.data.bad_bytes=replace"
            )
        self.count("texts or labels with bad bytes, read as U+FFFD", place, times)
        return NOT_TEXT.sub("\ufffd", value)

    def _ids(self, batch: RecordBatch) -> pa.LargeStringArray:
        ids: Column = [] if batch.ids is None else batch.ids
        if isinstance(ids, pa.Array):
            ids = ids.drop_null() if is_text(ids) else ids.to_pylist()
        if isinstance(ids, list):
            ids = [str(x) for x in ids if x is not None]
        return self._strings(ids, "id", batch.places)

    def _numbers(self, batch: RecordBatch, known: dict[str, int]) -> np.ndarray:
        """Numbers of the labels, int32 [n]; -1: none."""
        values, which = distinct(batch.labels)
        firsts = np.empty(len(values), int)
        firsts[which[::-1]] = np.arange(len(which))[::-1]  # of equal places the last one counts
        counts = np.bincount(which, minlength=len(values)).tolist()
        numbers = np.empty(len(values), np.int32)
        for i, (value, first, times) in enumerate(zip(values, firsts, counts, strict=True)):
            place: Any = batch.places[first]
            numbers[i] = self._number(self._label(value, place, times), known, place, times)
        return numbers[which]

    def _label(self, value: Any, place: int | str, times: int) -> str:
        """The label as text, "" if there is none."""
        if isinstance(value, list) and len(value) < 2:
            value = value[0] if value else None
        match value:
            case None:
                return ""
            case bool():
                return str(value).lower()
            case int():
                return str(value)
            case float() if value != value:  # NaN, as pandas writes a missing label
                return ""
            case float() if value.is_integer():
                return str(int(value))
            case str():
                label = self._clean(value, self._label_field, place, times)
                if label.strip() != label:
                    self.count("labels with blanks around them, removed", place, times)
                label = label.strip().removeprefix("__label__")
                whole = _WHOLE.fullmatch(label)
                return whole[1] if whole else label
        raise InputError(
            f"{self._where(place)} has {shown(value)} in {self._label_field!r}; expected a text, an integer, "
            "true, false, or a list of one of them"
        )

    def _number(self, label: str, known: dict[str, int], place: int | str, times: int) -> int:
        if not label:
            self.count("texts without a label, kept as unlabelled", place, times)
            return -1
        if self.classes and label not in known:
            raise InputError(
                f"{self._where(place)} has the label {label[:40]!r}, which the training texts do not have; "
                f"expected one of {_list(self.classes)}"
            )
        return known.setdefault(label, len(known))


def _hashes(groups: Column | None) -> np.ndarray:
    """The hashes of groups, uint64 [n], without those of nulls."""
    values, which = distinct(groups if groups is not None else [])
    hashes = np.array([hash_of(str(value)) for value in values], np.uint64)
    return hashes[which[np.array([value is not None for value in values], bool)[which]]]


def _concatenate(arrays: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)


def sort_labels(labels: Collection[str]) -> tuple[str, ...]:
    """Sorts labels as numbers if all are integers, otherwise as texts.

    Example:
      >>> sort_labels(["10", "-1", "9"]), sort_labels(["10", "9", "a"])
      (('-1', '9', '10'), ('10', '9', 'a'))
    """
    numbers = all(label.removeprefix("-").isdecimal() for label in labels)
    return tuple(sorted(labels, key=int if numbers else str))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(name[:20] for name in names[:_SHOWN])
    return shown + (", ..." if len(names) > _SHOWN else "")
