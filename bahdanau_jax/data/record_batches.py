"""Records of labelled texts as columns, a batch at a time, before they are checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, islice
from typing import Any

import numpy as np
import pyarrow as pa

ROWS = 2_048  # of a batch that Python reads

# Line, row or file name; the texts to join; label, group and id.
Record = tuple[int | str, list[Any], Any, Any, Any]
# A `pyarrow.Array`, or a list of values of any kind, from JSON for example.
Column = Any


@dataclasses.dataclass(frozen=True)
class RecordBatch:
    """Columns of some records.

    Attributes:
      places: line or row of each record, int [n], or names of files, object [n].
      texts: the columns that make a text.
      labels: None where there is no label.
      groups, ids: None if nobody asked for them.
    """

    places: np.ndarray
    texts: Sequence[Column]
    labels: Column
    groups: Column | None = None
    ids: Column | None = None

    def filter(self, kept: np.ndarray) -> RecordBatch:
        """Returns the records where `kept`, bool [n], is True."""

        def some(column: Column) -> Column:
            if isinstance(column, pa.Array):
                return column.filter(pa.array(kept))
            return column if column is None else list(compress(column, kept))

        texts = [some(column) for column in self.texts]
        others = map(some, (self.labels, self.groups, self.ids))
        return RecordBatch(self.places[kept], texts, *others)


def in_batches(records: Iterable[Record]) -> Iterator[RecordBatch]:
    """Batches of records, all or none of which have a group, and an id.

    Example:
      >>> [batch.labels for batch in in_batches([(2, ["fine"], "pos", None, None)])]
      [['pos']]
    """
    records = iter(records)
    while rows := list(islice(records, ROWS)):
        places, texts, labels, groups, ids = map(list, zip(*rows, strict=True))
        columns = [list(column) for column in zip(*texts, strict=True)]
        kind = object if isinstance(places[0], str) else int
        yield RecordBatch(np.array(places, kind), columns, labels, _asked(groups), _asked(ids))


def _asked(values: list[Any]) -> list[Any] | None:
    return None if all(value is None for value in values) else values


def plain(column: pa.Array) -> pa.Array:
    """A column without a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def is_text(column: pa.Array) -> bool:
    """Whether a column holds texts and nulls."""
    kind = column.type
    return any(
        f(kind) for f in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def distinct(column: Column) -> tuple[list[Any], np.ndarray]:
    """Values of a column, and int [n], which of them each row has. Lists are not compared.

    Example:
      >>> distinct(["b", "a", None, "b"])
      (['b', 'a', None], array([0, 1, 2, 0], dtype=int32))
    """
    values: Any = column
    # Arrow would read 1 and 1.0 as the same.
    if not isinstance(values, pa.Array) and len(set(map(type, values)) - {type(None)}) < 2:
        try:
            values = pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeError):
            pass
    if isinstance(values, pa.Array) and not pa.types.is_nested(values.type):
        encoded = values.dictionary_encode(null_encoding="encode")
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    rows = column.to_pylist() if isinstance(column, pa.Array) else column
    return rows, np.arange(len(rows), dtype=np.int32)
