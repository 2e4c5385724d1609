"""Keeps texts in a memory-mapped Arrow file: any number of texts, little memory."""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Self

import numpy as np
import pyarrow as pa

from bahdanau_jax.errors import InputError


def scratch_folder() -> str:
    """TMPDIR, or else /var/tmp, since /tmp is often held in memory."""
    default = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
    return os.environ.get("TMPDIR") or default or tempfile.gettempdir()


class ArrowTexts(Sequence[str]):
    """Texts in blocks, in Arrow's memory layout.

    Attributes:
      hashes: uint64 [n], of the texts.

    Example:
      >>> with ArrowWriter() as writer:
      ...     writer.append(pa.array(["fine", "dull"], pa.large_string()))
      ...     texts = writer.texts()
      >>> texts[1], list(texts.take(np.array([1, 0])))
      ('dull', ['dull', 'fine'])
    """

    def __init__(self, blocks: Sequence[pa.LargeStringArray], rows: np.ndarray, hashes: np.ndarray):
        self._blocks, self._rows, self.hashes = blocks, rows, hashes
        self._starts = np.cumsum([0, *map(len, blocks)])

    def take(self, indices: np.ndarray) -> ArrowTexts:
        """Returns the texts at `indices`, without a copy."""
        return ArrowTexts(self._blocks, self._rows[indices], self.hashes[indices])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        row = self._rows[index]
        block = int(np.searchsorted(self._starts, row, "right")) - 1
        return self._blocks[block][int(row - self._starts[block])].as_py()

    def __iter__(self) -> Iterator[str]:
        # Neighbours of one block are converted together, which takes a tenth of the time.
        blocks = np.searchsorted(self._starts, self._rows, "right") - 1
        begins = np.flatnonzero(np.diff(blocks, prepend=-1))
        for begin, end in pairwise([*begins, len(blocks)]):
            block = blocks[begin]
            rows = pa.array(self._rows[begin:end] - self._starts[block])
            yield from self._blocks[block].take(rows).to_pylist()


class ArrowWriter:
    """Writes texts to an Arrow file without a name, which disappears with the process. A context manager.

    The file is in `scratch_folder()`.

    Raises:
      InputError: the file system has no room for the file.
    """

    def __init__(self):
        self._folder = scratch_folder()
        self._schema = pa.schema([("text", pa.large_string())])
        self._hashes: list[np.ndarray] = []
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
        return sum(map(len, self._hashes))

    def append(self, texts: pa.LargeStringArray) -> None:
        """Adds texts, as a block."""
        if not len(texts):
            return
        self._hashes.append(_hashes(texts))
        try:
            self._writer.write_batch(pa.record_batch([texts], schema=self._schema))
        except OSError as error:
            raise self._no_room(error) from error

    def texts(self) -> ArrowTexts:
        """Returns all texts; no more can be added."""
        try:
            self._writer.close()
            self._file.flush()
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self._no_room(error) from error
        reader = pa.ipc.open_file(pa.py_buffer(mapped))
        blocks = [reader.get_batch(i).column(0) for i in range(reader.num_record_batches)]
        hashes = np.concatenate([np.zeros(0, np.uint64), *self._hashes])
        return ArrowTexts(blocks, np.arange(len(hashes)), hashes)

    def _no_room(self, error: OSError) -> InputError:
        return InputError(
            f"{self._folder}: no room for the texts ({error.strerror or error}); expected TMPDIR to name a "
            "folder with more"
        )


def _hashes(texts: pa.LargeStringArray) -> np.ndarray:
    """`hash_of` each text, uint64 [n]."""
    held = texts.cast(pa.large_binary()).to_pylist()
    digests = b"".join([hashlib.blake2b(text, digest_size=16).digest() for text in held])
    return np.frombuffer(digests, ">u8")[::2].astype(np.uint64)


class Names(Sequence[str]):
    """A name for each text: "reviews.csv:17" (its line) or "reviews/pos/17.txt".

    Example:
      >>> list(Names("reviews.csv", np.array([2, 4])))
      ['reviews.csv:2', 'reviews.csv:4']
    """

    def __init__(self, name: str, places: np.ndarray):
        self._name, self._places = name, places

    def take(self, indices: np.ndarray) -> Names:
        """Returns the names at `indices`."""
        return Names(self._name, self._places[indices])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index):
        place = self._places[index]
        return f"{self._name}/{place}" if isinstance(place, str) else f"{self._name}:{place}"
