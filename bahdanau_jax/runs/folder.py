"""A run's folder: made, checked, and never shared by two runs."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.config import flatten, upgrade
from bahdanau_jax.runs.lock import locked
from bahdanau_jax.runs.safe_files import check_folder, read_json, write_json

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
        settings: the fields of the run's config, checked before; they are kept in config.json.
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
            f"run folder {folder} holds {names[0]!r} but no config.json; expected an empty folder or one that "
            "holds a run"
        )
    check_folder(folder)
    with locked(folder) if lock else contextlib.nullcontext():
        _write_or_compare(folder, settings)
        yield folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _write_or_compare(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes config.json where no run has begun; refuses the folder of a run with other settings."""
    file, names = folder / "config.json", _names(folder)
    if not names:
        write_json(file, settings)
        return
    found = read_json(file)
    if not isinstance(found, dict):
        raise InputError(f"{file} is damaged: expected the fields of a config")
    found, wanted = flatten(upgrade(found)), flatten(settings)
    differences = [
        f"{name}: {_show(found, name)} in the folder, {_show(wanted, name)} asked for"
        for name in sorted({*found, *wanted})
        if _show(found, name) != _show(wanted, name)
    ]
    if differences and not set(names) - _BEFORE_TRAINING:
        write_json(file, settings)
    elif differences:
        raise InputError(
            f"run folder {folder} holds a run of another config; the fields differ: "
            + "; ".join(differences)
        )


def _show(flat: Mapping[str, Any], name: str) -> str:
    return json.dumps(flat[name]) if name in flat else "nothing"
