"""Files of a run's folder, which may come from anywhere: reading checks sizes, links and numbers."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from bahdanau_jax.atomic_write import write_bytes
from bahdanau_jax.errors import InputError

MAX_JSON_BYTES = 128 * 2**20  # a hundred times the largest file of a run
_LARGEST = 2**63 - 1


def check_folder(folder: Path) -> None:
    """Checks everything under a run's folder before any of it is opened.

    Raises:
      InputError: a link leads out of the folder, or something is neither file nor folder. A reader would wait
        on a pipe for ever.
    """
    try:
        inside = os.path.realpath(folder, strict=True)
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                path = Path(parent) / name
                kind = path.lstat().st_mode
                if stat.S_ISLNK(kind):
                    target = Path(os.path.realpath(path))  # still a link: one that leads to itself
                    if target.is_symlink() or not target.is_relative_to(inside):
                        raise InputError(
                            f"run folder {folder}: {path.relative_to(folder)} is a link to "
                            f"{os.readlink(path)!r}; expected nothing that leads out of the folder"
                        )
                elif not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                    raise InputError(
                        f"run folder {folder}: {path.relative_to(folder)} is neither a file nor a folder"
                    )
    except FileNotFoundError:
        pass  # a running run renames and removes files
    except OSError as error:  # such as a link to itself
        raise InputError(f"run folder {folder} cannot be read: {error.strerror}") from error


def parse_json(text: str | bytes) -> Any:
    """Parses JSON. Integers must fit into 64 bits, and numbers must be finite.

    Raises:
      ValueError: the text is not such JSON, or is nested too deeply.

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
    """The bytes of a small file.

    Raises:
      InputError: the file cannot be read, or is larger than a run's files.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise InputError(f"{path} has {size:,} bytes; expected at most {MAX_JSON_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def check_size(what: str, count: int) -> None:
    """Refuses more float32 values than this machine's memory can hold.

    Raises:
      InputError: in one line.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * count > memory:
        raise InputError(
            f"{what} would take {4 * count / 1e9:,.1f} GB; this machine has {memory / 1e9:,.1f} GB"
        )


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file as a whole or not at all. NaN and infinity become null: JSON lacks them.

    Raises:
      InputError: the file cannot be written, for example because the disk is full.
    """
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Writes a text in UTF-8, as a whole or not at all.

    Raises:
      InputError: as `write_json`.
    """
    write_bytes(path, text.encode("utf-8"))


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: the file is missing, cannot be read, or is not JSON with finite numbers.
    """
    try:
        return parse_json(read_small(Path(path)).decode("utf-8"))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is damaged: expected JSON, {error}") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
