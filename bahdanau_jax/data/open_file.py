"""Opens a file of texts, compressed or not; says in one line why it cannot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa

from bahdanau_jax.errors import DataNotFound, InputError, one_line

COMPRESSED = (".gz", ".zst", ".bz2", ".lz4")
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"\xd0\xcf\x11\xe0": "ole",
}
_NO_TEXT = {
    "zip": "a zip archive or a workbook (.xlsx); expected the file inside, or the sheet saved as CSV",
    "ole": "a workbook (.xls) or document; expected the sheet saved as CSV",
}


@contextlib.contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Raises what goes wrong while a file is read as DataNotFound or InputError, in one line."""
    try:
        yield
    except (OSError, UnicodeError, pa.ArrowException) as error:
        kind = DataNotFound if isinstance(error, FileNotFoundError) else InputError
        name, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
        raise kind(f"{name or path} cannot be read: {reason or one_line(error)}") from error


def open_bytes(path: Path) -> IO[bytes]:
    """Opens a file, decompressed if its first bytes are those of gzip, zstandard, bzip2 or LZ4.

    Raises:
      InputError: it is not a regular file, or an archive of several.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a pipe or a device; expected a file, which is read twice")
    file = open(path, "rb")
    start = file.read(4)
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            file.close()
            if kind in _NO_TEXT:
                raise InputError(f"{path} is {_NO_TEXT[kind]}")
            return pa.input_stream(str(path), compression=kind)  # type: ignore
    file.seek(0)
    return file


def without_compression(name: str) -> str:
    """A file's name in small letters, without .gz and its like.

    Example:
      >>> without_compression("Reviews.CSV.gz")
      'reviews.csv'
    """
    name = name.lower()
    return name.removesuffix(next(filter(name.endswith, COMPRESSED), ""))
