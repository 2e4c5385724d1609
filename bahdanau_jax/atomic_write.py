"""Writes a file whole or not at all."""

import contextlib
import fcntl
import os
from pathlib import Path

from bahdanau_jax.errors import InputError


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes the whole file, or leaves the old one as it was, even if the machine goes down.

    Raises:
      InputError: the file cannot be written, for example because the disk is full.
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(new, "wb") as stream:
            stream.write(content)
            stream.flush()
            _flush_to_disk(stream.fileno())
        os.replace(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def _flush_to_disk(descriptor: int) -> None:
    os.fsync(descriptor)
    # macOS only, where fsync stops at the drive's cache. Network file systems there do not know it.
    flush_drive = getattr(fcntl, "F_FULLFSYNC", None)
    if flush_drive is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, flush_drive)
