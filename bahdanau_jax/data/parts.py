"""Texts of a file or folder, checked one by one as they are read."""

from __future__ import annotations

import array
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from bahdanau_jax.data.arrow_texts import ArrowTexts, ArrowWriter, Names
from bahdanau_jax.data.dataset import Examples, hash_of
from bahdanau_jax.data.objects import as_text, shown
from bahdanau_jax.data.sniff import NOT_TEXT
from bahdanau_jax.data.tables import Record
from bahdanau_jax.errors import InputError

MOST_CLASSES = 1_000  # a column with more values does not hold labels
_SHOWN = 8  # names in a message
_WHOLE = re.compile(r"(-?\d+)\.0+")


class Part:
    """The texts of a file or folder. `read` reads and checks them.

    Args:
      name: of the file or folder, for ids and messages.
      row: what a record is called in messages: "line" or "row".
      label: the column of labels, for messages.
      classes: the labels that may occur; none: any.
      refuse: whether bytes that are not text are an error.

    Attributes:
      examples: the labelled texts.
      unlabelled: the other texts.
      groups: uint64 [n], of their groups, or None.
      classes: those given, or else those found, sorted as numbers if all are integers.
    """

    examples: Examples
    unlabelled: ArrowTexts
    groups: np.ndarray | None

    def __init__(self, name: str, row: str, label: str, classes: Sequence[str], *, refuse: bool):
        self.name, self.classes = name, tuple(classes)
        self._row, self._label_field, self._refuse = row, label, refuse
        self._notes: list[str] = []
        self._counts: dict[str, tuple[int, str]] = {}  # what was changed: how often, first where

    def note(self, line: str) -> None:
        """Adds a line to `notes`."""
        self._notes.append(line)

    def count(self, what: str, place: int | str) -> None:
        """Counts a text that was changed or left out."""
        count, first = self._counts.get(what, (0, place))
        self._counts[what] = count + 1, str(first)

    @property
    def notes(self) -> list[str]:
        """How the texts were read, and what was changed or left out."""
        counts = [
            f"{self.name}: {what}: {count:,} (the first: {f'{self._row} {first}'.strip()})"
            for what, (count, first) in self._counts.items()
        ]
        return self._notes + counts

    def read(self, records: Iterable[Record]) -> None:
        """Reads and checks the texts.

        Raises:
          InputError: a text or a label is something else, or there are none. Names the line.
        """
        labels, groups = array.array("i"), array.array("Q")
        numbers, names = array.array("q"), list[str]()  # of lines, or of files
        known = {label: i for i, label in enumerate(self.classes)}
        cache: dict[str, int] = {}  # labels that need no cleaning
        with ArrowWriter() as texts, ArrowWriter() as ids:
            for place, values, label, group, key in records:
                text = self._text(values, place)
                if not text.strip():
                    self.count("empty texts, left out", place)
                    continue
                number = cache.get(label) if type(label) is str else None
                if number is None:
                    cleaned = self._label(label, place)
                    number = self._number(cleaned, known, place)
                    if cleaned and cleaned == label:
                        cache[cleaned] = number
                labels.append(number)
                texts.append(text)
                names.append(place) if isinstance(place, str) else numbers.append(place)
                if group is not None:
                    groups.append(hash_of(str(group)))
                if key is not None:
                    ids.append(self._clean(str(key), "id", place))
            if {len(groups), len(ids)} - {0, len(labels)}:
                raise InputError(
                    f"{self.name}: some texts have no group or no id; expected all to have"
                )
            stored = texts.texts()
            places = ids.texts() if len(ids) else Names(self.name, names or np.array(numbers))
        if isinstance(places, ArrowTexts) and len(np.unique(places.hashes)) != len(places):
            raise InputError(f"{self.name}: two texts have the same id; expected distinct ones")
        self._sort_classes(known)
        found = np.array(labels, np.int32)
        rows = np.flatnonzero(found >= 0)
        if not len(rows):
            raise InputError(f"{self.name} holds no texts" + " with labels" * bool(labels))
        order = np.empty(len(known), np.int32)
        order[[known[label] for label in self.classes]] = np.arange(len(known))
        self.examples = Examples(stored.take(rows), order[found[rows]], places.take(rows))
        self.unlabelled = stored.take(np.flatnonzero(found < 0))
        self.groups = np.array(groups, np.uint64)[rows] if groups else None

    def _sort_classes(self, known: Collection[str]) -> None:
        self.classes = self.classes or sort_labels(known)
        if len(self.classes) > MOST_CLASSES:
            raise InputError(
                f"{self.name}: {self._label_field!r} has {len(known):,} values ({_list(self.classes)}); "
                f"expected 2 to {MOST_CLASSES:,}"
            )

    def _where(self, place: int | str) -> str:
        return f"{self.name}: {self._row} {place}" if self._row else f"{self.name}/{place}"

    def _text(self, values: Sequence[Any], place: int | str) -> str:
        if len(values) == 1:
            return self._clean(values[0], "text", place)
        parts = (self._clean(value, "text", place) for value in values)
        return "\n".join(part for part in parts if part)

    def _clean(self, value: Any, field: str, place: int | str) -> str:
        """A text without what UTF-8 cannot hold; "" for a null."""
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
        self.count("texts or labels with bad bytes, read as U+FFFD", place)
        return NOT_TEXT.sub("\ufffd", value)

    def _label(self, value: Any, place: int | str) -> str:
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
                label = self._clean(value, self._label_field, place)
                if label.strip() != label:
                    self.count("labels with blanks around them, removed", place)
                label = label.strip().removeprefix("__label__")
                whole = _WHOLE.fullmatch(label)
                return whole[1] if whole else label
        raise InputError(
            f"{self._where(place)} has {shown(value)} in {self._label_field!r}; expected a text, an integer, "
            "true, false, or a list of one of them"
        )

    def _number(self, label: str, known: dict[str, int], place: int | str) -> int:
        if not label:
            self.count("texts without a label, kept as unlabelled", place)
            return -1
        if self.classes and label not in known:
            raise InputError(
                f"{self._where(place)} has the label {label[:40]!r}, which the training texts do not have; "
                f"expected one of {_list(self.classes)}"
            )
        return known.setdefault(label, len(known))


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
