"""Stores the ids of many texts in one array: in memory if they are few, in a file if they are many."""

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

# Bytes of ids. More go to a file, whose parts in use the system keeps in memory as far as they fit.
IN_MEMORY = 2**28


class EncodedTexts(Sequence[np.ndarray]):
    """Rows of ids, int32 [length] each, in one array.

    Attributes:
      values: int32 [total], the ids of all rows.
      starts, ends: int64 [n], where each row starts and ends in `values`.

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
        """Stores rows as they come.

        More than `IN_MEMORY` bytes go to a file in `folder`. The file has no name and disappears with the
        process.

        Raises:
          InputError: the file system has no room for the file.
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
                    values = np.frombuffer(_map_file(file), np.int32)
        except OSError as error:
            raise InputError(f"{folder}: no room for the texts' ids: {error.strerror}") from error
        ends = np.cumsum(np.array(lengths, np.int64))
        return cls(values, ends - np.array(lengths, np.int64), ends)

    @property
    def lengths(self) -> Int[np.ndarray, "n"]:
        """Number of ids in each row."""
        return self.ends - self.starts

    def last(self, most: int) -> "EncodedTexts":
        """Returns the last `most` ids of each row, without a copy."""
        return EncodedTexts(self.values, np.maximum(self.starts, self.ends - most), self.ends)

    def pieces(self, most: int) -> "EncodedTexts":
        """Cuts rows of more than `most` ids into as few equal pieces as that takes, without a copy.

        Example:
          >>> ids = EncodedTexts(np.arange(7), np.array([0, 5]), np.array([5, 7]))
          >>> [row.tolist() for row in ids.pieces(3)]
          [[0, 1], [2, 3, 4], [5, 6]]
        """
        number = -(-self.lengths // most)
        row = np.repeat(np.arange(len(self)), number)
        index = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
        cut = lambda index: self.starts[row] + self.lengths[row] * index // number[row]  # noqa: E731
        return EncodedTexts(self.values, cut(index), cut(index + 1))

    def __add__(self, other: "EncodedTexts") -> "EncodedTexts":
        """Returns the rows of both, in a new array in memory."""
        n = len(self.values)
        return EncodedTexts(
            np.concatenate([self.values, other.values]),
            np.concatenate([self.starts, other.starts + n]),
            np.concatenate([self.ends, other.ends + n]),
        )

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


def _map_file(file: IO[bytes]) -> mmap.mmap:
    """Maps the file into memory; the system reads the parts that are used."""
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Batches read texts in random order. Reading ahead would replace useful pages by useless ones.
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return mapped
