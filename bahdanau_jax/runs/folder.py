"""A run's folder: made, checked, and locked against a second run."""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.parse_config import flatten, upgrade
from bahdanau_jax.runs.safe_files import check_folder, read_json, write_json

# What a run's folder may hold.
RUN_FILES = {
    "checkpoints": "weights, optimizer, data position",
    "vocabulary.json": "words and ids",
    "config.json": "the settings of this run",
    "data.json": "digests of the data it is trained on",
    "metrics.jsonl": "every figure, one JSON object a line",
    "tensorboard": "the same for tensorboard --logdir",
    "train.log": "what was printed, with times",
    "predictions.jsonl": "one line for each validation and test text",
    "reviews.jsonl": "the texts of some of them",
    "calibration.json": "the temperature that predictions are scaled by",
    "report.html": "where it fails, and whether its attention is faithful",
    "result.json": "this table",
    "vectors.npy": "the words' vectors",
}
# What a run writes before its first step.
_BEFORE_TRAINING = {"config.json", "data.json", "vocabulary.json"}


@contextlib.contextmanager
def open_workdir(
    workdir: str | Path, settings: Mapping[str, Any], *, lock: bool = True
) -> Iterator[Path]:
    """Opens the run's folder, makes it if needed, and keeps other runs out meanwhile.

    The folder must be empty or hold a run with the same settings; hidden files do not count. Nothing in it is
    changed, with one exception: the config of a run that never began training makes way for another.

    Args:
      workdir: the folder; `~` is the home folder.
      settings: the fields of the run's config, already checked; they are written to config.json.
      lock: whether to lock the folder. Of the processes of one run, only the first one does.

    Raises:
      InputError: in one line. The folder cannot be made or written to, holds something else, is in use, or
        holds a run with other settings; the message names the fields that differ.

    Example:
      >>> with open_workdir("runs/imdb", {"seed": 0}) as folder:  # doctest: +SKIP
      ...     folder
      PosixPath('runs/imdb')
    """
    folder = Path(workdir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = _names(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass  # permission bits alone do not show whether it can be written to
    except OSError as error:
        raise InputError(
            f"run folder {folder}: {error.strerror}; expected a folder that can be written to"
        ) from error
    if names and "config.json" not in names:
        raise InputError(
            f"run folder {folder} holds {names[0]!r} but no config.json; expected an empty folder or "
            "one that holds a run"
        )
    check_folder(folder)
    with _locked(folder) if lock else contextlib.nullcontext():
        _write_or_compare(folder, settings)
        yield folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the file `.lock`. The operating system drops the lock when the process ends, even by a kill."""
    file = folder / ".lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error
    with open(descriptor, "r+b", buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # some network file systems say EACCES
            raise InputError(
                f"run folder {folder} is in use by {_holder(stream.read(1000))}; expected a folder to "
                "which no other run is writing"
            ) from error
        except OSError as error:  # some network file systems have no locks
            warnings.warn(
                f"{file} cannot be locked ({error.strerror}): do not start a second run in this folder",
                stacklevel=5,
            )
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            stream.truncate(0)
            stream.write(f"{holder}\n".encode())
        yield


def _holder(content: bytes) -> str:
    try:
        found = json.loads(content)
        return f"process {found['pid']:d} on {found['host']:.100s}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"  # which has not written its name yet


def _write_or_compare(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes config.json if no run has begun. Refuses the folder of a run with other settings."""
    file, names = folder / "config.json", _names(folder)
    if not names:
        write_json(file, settings)
        return
    found = read_json(file)
    if not isinstance(found, dict):
        raise InputError(f"{file} is damaged: expected the fields of a config")
    wanted = flatten(json.loads(json.dumps(settings)))  # a tuple equals the list in the file
    differences = _differences(found, wanted)
    if differences and set(names) <= _BEFORE_TRAINING:
        write_json(file, settings)
    elif found.get("method") != settings.get("method"):
        raise InputError(
            f"run folder {folder} holds {_kind(found)}; expected an empty folder or one of {_kind(settings)}"
        )
    elif differences:
        raise InputError(
            f"run folder {folder} holds a run of another config; the fields differ: "
            + "; ".join(differences)
        )


def _kind(settings: Mapping[str, Any]) -> str:
    method = settings.get("method")  # of a baseline or a blend
    return f"the result of {method!r:.40}" if method else "a training run"


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    # `upgrade` adds every field of a config. Those that neither side names do not count: a baseline's settings
    # have few of them.
    known = flatten(found).keys() | wanted.keys()
    upgraded = {name: value for name, value in flatten(upgrade(found)).items() if name in known}
    return [
        f"{name}: {_show(upgraded, name)} in the folder, {_show(wanted, name)} asked for"
        for name in sorted(upgraded.keys() | wanted.keys())
        if name not in upgraded or name not in wanted or upgraded[name] != wanted[name]
    ]


def _show(flat: Mapping[str, Any], name: str) -> str:
    return json.dumps(flat[name]) if name in flat else "nothing"
