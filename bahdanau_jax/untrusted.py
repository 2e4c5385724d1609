"""A run's folder may come from anywhere: what is read stays inside of it, and its numbers are of this world."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from bahdanau_jax.errors import InputError

MAX_JSON_BYTES = 128 * 2**20  # a hundred times what a run writes
_LARGEST = 2**63 - 1


def check_folder(folder: Path) -> None:
    """Looks at everything under a run's folder before anything in it is opened.

    Raises:
      InputError: a link leads out of it, or something is neither file nor folder, such as a pipe, on
        which a reader would wait for ever.
    """
    try:
        inside = folder.resolve(strict=True)
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                path = Path(parent) / name
                kind = path.lstat().st_mode
                if stat.S_ISLNK(kind):
                    if not path.resolve().is_relative_to(inside):
                        raise InputError(
                            f"run folder {folder}: {path.relative_to(folder)} is a link to "
                            f"{os.readlink(path)!r}; expected nothing that leads out of the folder"
                        )
                elif not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                    raise InputError(
                        f"run folder {folder}: {path.relative_to(folder)} is neither a file nor a folder"
                    )
    except FileNotFoundError:
        pass  # a run that is writing there renames and removes
    except OSError as error:  # such as a link to itself
        raise InputError(f"run folder {folder} cannot be read: {error.strerror}") from error
    except RuntimeError as error:
        raise InputError(f"run folder {folder} cannot be read: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """What JSON text holds, whose integers fit into 64 bits and whose numbers are finite.

    Raises:
      ValueError: it is something else, or nested too deeply.

    Example:
      >>> parse_json('{"n": 1e999}')
      Traceback (most recent call last):
      ValueError: the number 1e999; expected a finite one
    """
    try:
        return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_float)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > _LARGEST:
        raise ValueError(f"the number {digits:.30}; expected one of at most 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    if not math.isfinite(float(digits)):
        raise ValueError(f"the number {digits:.30}; expected a finite one")
    return float(digits)


def read_small(path: Path) -> bytes:
    """The bytes of a file that a run wrote.

    Raises:
      InputError: it cannot be read, or is larger than any that a run writes.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise InputError(f"{path} has {size:,} bytes; expected at most {MAX_JSON_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def check_size(what: str, count: int) -> None:
    """Refuses so many float32 values that this machine's memory cannot hold them.

    Raises:
      InputError: in one line.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * count > memory:
        raise InputError(
            f"{what} would take {4 * count / 1e9:,.1f} GB; this machine has {memory / 1e9:,.1f} GB"
        )
