"""Texts as ids, one after another in one array: in memory while they are few, in a file when they are many."""

import array
import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Self, overload

import numpy as np
from jaxtyping import Int

from bahdanau_jax.errors import InputError

IN_MEMORY = 2**28  # bytes; of ids beyond, the system holds in memory what is in use and fits


class EncodedTexts(Sequence[np.ndarray]):
    """int32 [length] each, rows of one array.

    Attributes:
      values: int32 [total].
      starts, ends: int64 [n], where each row stands in it.

    Example:
      >>> ids = EncodedTexts(np.array([1, 5, 7, 1, 9]), np.array([0, 3]), np.array([3, 5]))
      >>> [row.tolist() for row in ids.last(2)], ids.lengths.tolist()
      ([[5, 7], [1, 9]], [3, 2])
    """

    def __init__(
        self,
        values: Int[np.ndarray, "total"],
        starts: Int[np.ndarray, "n"],
        ends: Int[np.ndarray, "n"],
    ):
        self.values, self.starts, self.ends = values, starts, ends

    @classmethod
    def gather(cls, rows: Iterable[np.ndarray], folder: str | os.PathLike[str]) -> Self:
        """Takes rows as they come. Beyond `IN_MEMORY` bytes they go to a file in `folder`, without a name:
        it is gone with the process.

        Raises:
          InputError: there is no room for it.
        """
        held, lengths, file = array.array("i"), array.array("i"), None
        try:
            with contextlib.ExitStack() as opened:
                for row in rows:
                    held.frombytes(np.asarray(row, np.int32).tobytes())
                    lengths.append(len(row))
                    if len(held) * held.itemsize > IN_MEMORY:
                        file = file or opened.enter_context(tempfile.TemporaryFile(dir=folder))
                        held.tofile(file)
                        held = array.array("i")
                values = np.frombuffer(held, np.int32) if held else np.zeros(0, np.int32)
                if file is not None:
                    held.tofile(file)
                    file.flush()
                    values = np.frombuffer(_mapped(file), np.int32)
        except OSError as error:
            raise InputError(f"{folder}: no room for the texts' ids: {error.strerror}") from error
        ends = np.cumsum(np.array(lengths, np.int64))
        return cls(values, ends - np.array(lengths, np.int64), ends)

    @property
    def lengths(self) -> Int[np.ndarray, "n"]:
        """Of each row."""
        return self.ends - self.starts

    def last(self, most: int) -> "EncodedTexts":
        """The last `most` ids of each row, on the same array."""
        return EncodedTexts(self.values, np.maximum(self.starts, self.ends - most), self.ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> "EncodedTexts": ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return EncodedTexts(self.values, self.starts[index], self.ends[index])
        return np.asarray(self.values[self.starts[index] : self.ends[index]])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))


def _mapped(file: IO[bytes]) -> mmap.mmap:
    """The file as memory, of which the system reads what is used."""
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Texts are taken in a random order: reading ahead, as far as megabytes, would throw away what is
    # in memory for what is not wanted.
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return mapped
