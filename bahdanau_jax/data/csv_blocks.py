"""Splits rows of CSV into columns, a block of bytes at a time, with NumPy and Arrow.

`pyarrow.csv` names no lines, and reads what follows a closing quote as part of the field. Here a block must be
plain: each quote begins or ends a field, or is doubled inside one, and all rows have the same number of fields.
`csv_rows` reads the other blocks, and finds the fault if there is one.
"""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from bahdanau_jax.data.csv_rows import LONGEST, csv_rows
from bahdanau_jax.data.open_file import open_bytes
from bahdanau_jax.data.record_batches import ROWS, Column
from bahdanau_jax.data.sniff import Layout, open_lines, utf8_blocks

BLOCK = 2**22  # bytes
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'

# Number of columns and lines of some rows, and a function from a column's position to its fields.
Rows = tuple[int, np.ndarray, Callable[[int], Column]]


def row_blocks(path: Path, layout: Layout, block: int = BLOCK) -> Iterator[Rows]:
    """Yields the rows of a file, some at a time, as `csv_rows` reads them.

    Args:
      path: the file.
      layout: how it is written, from `sniff`.
      block: bytes to read at once.

    Raises:
      InputError: as `csv_rows`.
    """
    name, delimiter, quoting = str(path), layout.delimiter, layout.quoting == "yes"
    if layout.escape or layout.newline != "\n" or not delimiter.isascii() or len(delimiter) > 1:
        with open_lines(path, layout) as file:
            rows = csv_rows(file, name, delimiter, quoting=quoting, escape=layout.escape)
            yield from in_blocks(rows)
        return
    with open_bytes(path) as file:
        rest, width = _Rest(utf8_blocks(file, layout.encoding, block), layout.encoding), 0
        while True:
            plain = _split(rest, ord(delimiter), quoting, width)
            if plain is not None and plain.size:
                rest.drop(plain.size, plain.newlines)
                if len(plain.lines):
                    width = plain.begins.shape[1]
                    yield width, plain.lines, plain.column
            elif plain is None or len(rest.data) > LONGEST or not rest.more():
                if not rest.data:
                    return
                size, line, some = len(rest.data), rest.line, []
                found = csv_rows(
                    rest.lines(), name, delimiter, quoting=quoting, first=line, width=width
                )
                # The last row may go on in the next block.
                while rest.at < size and (row := next(found, None)):
                    some.append(row)
                rest.drop(rest.at, 0)
                if some:
                    width = len(some[0][1])
                    yield _as_columns(some)


def in_blocks(rows: Iterator[tuple[int, list[str]]]) -> Iterator[Rows]:
    """Rows, of `csv_rows` for example, some at a time.

    Example:
      >>> (width, lines, column), = in_blocks(iter([(1, ["a", "b"]), (2, ["c", "d"])]))
      >>> width, lines, column(1)
      (2, array([1, 2]), ['b', 'd'])
    """
    while some := list(islice(rows, ROWS)):
        yield _as_columns(some)


def _as_columns(rows: Sequence[tuple[int, list[str]]]) -> Rows:
    lines = np.array([line for line, _ in rows])
    return len(rows[0][1]), lines, lambda i: [row[i] for _, row in rows]


class _Rest:
    """What is not split yet of a file: `data`, in UTF-8 or nearly, which begins with line `line`."""

    def __init__(self, blocks: Iterator[bytes], encoding: str):
        self.data, self.line, self.at = b"", 1, 0
        is_utf8 = codecs.lookup(encoding).name.startswith("utf-8")
        self.errors = "surrogateescape" if is_utf8 else "surrogatepass"
        self._blocks = (block for block in blocks if block)

    def more(self) -> bool:
        """Reads as much again, at least a block. Ends the last line. False: there is no more."""
        some = [next(self._blocks, b"")]
        while some[-1] and sum(map(len, some)) < len(self.data):
            some.append(next(self._blocks, b""))
        if not some[0] and self.data and not self.data.endswith(b"\n"):
            some = [b"\n"]
        self.data = b"".join([self.data, *some])
        return bool(some[0])

    def lines(self) -> Iterator[str]:
        """Yields the lines. `at` is where the next one begins."""
        while True:
            end = self.data.find(b"\n", self.at) + 1
            if end:
                line = self.data[self.at : end]
                self.at, self.line = end, self.line + 1
                yield line.decode("utf-8", self.errors)
            elif not self.more():
                return

    def drop(self, size: int, lines: int) -> None:
        """Removes bytes and lines at the beginning."""
        self.data, self.line, self.at = self.data[size:], self.line + lines, 0


@dataclasses.dataclass(frozen=True)
class _Plain:
    """The complete rows at the beginning of `data`: `size` bytes.

    data[begins[i, j] : ends[i, j]] is the field of row i and column j. The rows begin in `lines`.
    """

    data: bytes
    errors: str
    size: int
    newlines: int
    lines: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    def column(self, i: int) -> Column:
        """The fields of a column."""
        # Arrow gets the fields and what stands between them, and takes every other one.
        offsets = np.column_stack([self.begins[:, i], self.ends[:, i]]).ravel()
        count = len(offsets) - 1
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.data)]
        pieces = pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, buffers)
        fields = pieces.take(pa.array(np.arange(0, count, 2)))
        try:
            return fields.cast(pa.large_string())
        except pa.ArrowInvalid:  # bytes that are not text
            return [field.decode("utf-8", self.errors) for field in fields.to_pylist()]


def _split(rest: _Rest, delimiter: int, quoting: bool, width: int) -> _Plain | None:
    """Splits the complete rows of `width` fields (0: as the first has). None: they are not plain."""
    data = rest.data
    array = np.frombuffer(data, np.uint8)
    newlines, cuts = np.flatnonzero(array == _NEWLINE), np.flatnonzero(array == delimiter)
    quotes = np.flatnonzero(array == _QUOTE) if quoting and b'"' in data else newlines[:0]

    def outside(places: np.ndarray) -> np.ndarray:
        """Those with an even number of quotes before them: none is open."""
        return places[np.searchsorted(quotes, places) % 2 == 0] if len(quotes) else places

    stops = outside(newlines)
    size = int(stops[-1]) + 1 if len(stops) else 0
    quotes, cuts = quotes[quotes < size], outside(cuts[cuts < size])
    if len(quotes):
        # Each opens after a delimiter or a line's end and closes before one, or is doubled.
        edge = np.zeros(256, bool)
        edge[[delimiter, _NEWLINE, _QUOTE]] = True
        before, after = array[quotes[::2] - 1][int(quotes[0] == 0) :], array[quotes[1::2] + 1]
        if not (edge[before].all() and (edge[after] | (after == _RETURN)).all()):
            return None
    starts = np.concatenate([[0], stops[:-1] + 1])[: len(stops)]
    if b"\r" in data:
        returns = outside(np.flatnonzero(array[:size] == _RETURN))
        if (array[returns + 1] != _NEWLINE).any():
            return None
        stops = np.maximum(stops - (array[stops - 1] == _RETURN), starts)
    filled = stops > starts  # readers skip blank lines
    starts, stops = starts[filled], stops[filled]
    width = width or int(np.searchsorted(cuts, stops[0]) if len(stops) else 0) + 1
    if len(cuts) != len(starts) * (width - 1):
        return None
    cuts = cuts.reshape(len(starts), width - 1)
    if (cuts < starts[:, None]).any() or (cuts > stops[:, None]).any():
        return None
    begins, ends = np.column_stack([starts, cuts + 1]), np.column_stack([cuts, stops])
    if (ends - begins > LONGEST).any():
        return None
    if len(quotes):
        enclosed = (array[begins] == _QUOTE) & (begins < ends)
        begins, ends = begins + enclosed, ends - enclosed
    lines = rest.line + np.searchsorted(newlines, starts)
    count = int(np.searchsorted(newlines, size))
    doubled = quotes[2::2][array[quotes[2::2] - 1] == _QUOTE]
    if len(doubled):  # the second of each two is dropped
        pieces = zip([0, *(doubled + 1).tolist()], [*doubled.tolist(), size], strict=True)
        data = b"".join([data[i:j] for i, j in pieces])
        begins, ends = (x - np.searchsorted(doubled, x) for x in (begins, ends))
    return _Plain(data, rest.errors, size, count, lines, begins, ends)
