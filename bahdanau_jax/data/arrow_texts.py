"""Keeps texts in a memory-mapped Arrow file: any number of texts, little memory."""

from __future__ import annotations

import array
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import pyarrow as pa

from bahdanau_jax.data.dataset import hash_of, take
from bahdanau_jax.errors import InputError

ROWS = 512  # per block, so that the block of a row is a division away


class ArrowTexts(Sequence[str]):
    """Texts in blocks of `ROWS`, in Arrow's memory layout.

    Attributes:
      hashes: uint64 [n], of the texts.

    Example:
      >>> with ArrowWriter() as writer:
      ...     for text in ("fine", "dull"):
      ...         writer.append(text)
      ...     texts = writer.texts()
      >>> texts[1], list(texts.take(np.array([1, 0])))
      ('dull', ['dull', 'fine'])
    """

    def __init__(self, blocks: Sequence[pa.LargeStringArray], rows: np.ndarray, hashes: np.ndarray):
        self._blocks, self._rows, self.hashes = blocks, rows, hashes

    def take(self, indices: np.ndarray) -> ArrowTexts:
        """Returns the texts at `indices`, without a copy."""
        return ArrowTexts(self._blocks, self._rows[indices], self.hashes[indices])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        block, row = divmod(int(self._rows[index]), ROWS)
        return self._blocks[block][row].as_py()

    def __iter__(self) -> Iterator[str]:
        # Neighbours of one block are converted together, which takes a tenth of the time.
        blocks = self._rows // ROWS
        for rows in np.split(self._rows, np.flatnonzero(np.diff(blocks)) + 1):
            if len(rows):
                yield from self._blocks[rows[0] // ROWS].take(pa.array(rows % ROWS)).to_pylist()


class ArrowWriter:
    """Writes texts to an Arrow file without a name, which disappears with the process. A context manager.

    The file is in TMPDIR, or else /var/tmp, since /tmp is often held in memory.

    Raises:
      InputError: the file system has no room for the file.
    """

    def __init__(self):
        default = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
        self._folder = os.environ.get("TMPDIR") or default or tempfile.gettempdir()
        self._schema = pa.schema([("text", pa.large_string())])
        self._held: list[str] = []
        self._hashes = array.array("Q")
        try:
            self._file = tempfile.TemporaryFile(dir=self._folder)
            self._writer = pa.ipc.new_file(self._file, self._schema)
        except OSError as error:
            raise self._no_room(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._hashes)

    def append(self, text: str) -> None:
        """Adds a text."""
        self._held.append(text)
        self._hashes.append(hash_of(text))
        if len(self._held) == ROWS:
            self._write()

    def texts(self) -> ArrowTexts:
        """Returns all texts; no more can be added."""
        if self._held:
            self._write()
        try:
            self._writer.close()
            self._file.flush()
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self._no_room(error) from error
        reader = pa.ipc.open_file(pa.py_buffer(mapped))
        blocks = [reader.get_batch(i).column(0) for i in range(reader.num_record_batches)]
        hashes = np.array(self._hashes, np.uint64)
        return ArrowTexts(blocks, np.arange(len(hashes)), hashes)

    def _write(self) -> None:
        block = pa.record_batch([pa.array(self._held, pa.large_string())], schema=self._schema)
        try:
            self._writer.write_batch(block)
        except OSError as error:
            raise self._no_room(error) from error
        self._held = []

    def _no_room(self, error: OSError) -> InputError:
        return InputError(
            f"{self._folder}: no room for the texts ({error.strerror or error}); expected TMPDIR to name a "
            "folder with more"
        )


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
