"""A run's folder: made, checked, and never given to a run of another config or to two at a time."""

import contextlib
import difflib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bahdanau_jax.classifier import POOLINGS
from bahdanau_jax.errors import InputError
from bahdanau_jax.lock import locked
from bahdanau_jax.optimizer import make_optimizer
from bahdanau_jax.untrusted import check_folder, check_size, parse_json, read_small

# Every field of a config but `optimizer`'s, which are those of the optimizer it names.
_AT_LEAST = {
    "seed": 0,
    "data.validation_size": 0,
    "data.train_size": 1,
    "data.test_size": 0,
    "vocab_size": 5,  # pad, start, unknown, unused and one word
    "max_length": 1,
    "model.embedding_features": 1,
    "model.hidden_features": 1,
    "model.num_layers": 1,
    "model.attention_units": 1,
    "model.head_features": 1,
    "model.members": 1,
    "model.ngrams": 0,
    "model.ngram_rows": 1,
    "model.bigram_rows": 0,
    "model.window": 1,
    "model.negatives": 1,
    "model.chunk_size": 0,
    "batch_size": 1,
    "microbatches": 0,
    "host_devices": 0,
    "epochs": 1,
    "checkpoint.every_steps": 1,
    "checkpoint.keep": 1,
    "max_skipped_steps": 0,
    "log_every_steps": 1,
}
# Where a larger number could only be a mistake, or meant to exhaust the machine.
_AT_MOST = {
    "max_length": 1_000_000,
    "model.num_layers": 1_000,
    "model.members": 1_000,
    "model.ngrams": 100,
}
_ONE_OF = {
    "data.source": ("tfds", "files", "embedded", "rotten_tomatoes", "made_up"),
    "class_weights": (True, False),
    "marks": (True, False),
    "task": ("word_vectors",),
    "unlabelled": (True, False),
    "model.dtype": ("float32", "bfloat16"),
    "model.implementation": ("auto", "scan", "native"),
    "model.mask_attention": (True, False),
}
_RATES = ("model.dropout", "model.head_dropout", "model.word_dropout")
_OTHER = (
    "data.name", "data.data_dir", "data.path", "data.validation_path", "data.test_path", "data.text",
    "data.label", "bucket_lengths", "model.pooling", "model.ngram_share", "model.subsample",
    "checkpoint.every_minutes", *_RATES, "init_from", "teacher",
)  # fmt: skip
_PLAIN = (bool, int, float, str, tuple, list, type(None))  # what a JSON file can hold
# What is written before the first step.
_BEFORE_TRAINING = {"config.json", "data.json", "soft_labels.json", "vocabulary.json"}
# All fields of a config that learns word vectors.
_OF_WORD_VECTORS = {
    "seed", "data.source", "data.name", "data.data_dir", "data.path", "data.validation_path",
    "data.test_path", "data.text", "data.label", "data.validation_size", "data.train_size",
    "data.test_size", "vocab_size", "marks", "epochs", "model.embedding_features",
    "task", "unlabelled", "model.window", "model.negatives", "model.subsample",
}  # fmt: skip
_NOT_OF_CLASSIFIERS = {"task", "model.window", "model.negatives", "model.subsample"}
_LARGEST = 2**31 - 1  # what int32 holds, in which lengths, ids and seeds are kept


def validate_config(config: ConfigDict) -> None:
    """Checks that every field is there and within its range.

    Raises:
        InputError: in one line, naming the field, what it holds and what was expected.

    Example:
        >>> from experiments import imdb
        >>> validate_config(imdb.get_config())
    """
    flat = flatten(config)
    names = [*_AT_LEAST, *_ONE_OF, *_OTHER, "optimizer.name", "optimizer.learning_rate"]
    if "task" in flat:
        names = [name for name in names if name in _OF_WORD_VECTORS]
    else:
        names = [name for name in names if name not in _NOT_OF_CLASSIFIERS]
    for name in flat:
        if name not in names and not name.startswith("optimizer."):
            close = difflib.get_close_matches(name, names, n=1)
            raise InputError(
                f"config.{name} is no field of a config"
                + (f"; did you mean config.{close[0]}?" if close else "")
            )
    for name in names:
        if name not in flat:
            raise InputError(f"config.{name} is missing")
    check_ranges(flat)
    for name in ("optimizer.learning_rate", "optimizer.eps", "model.subsample"):
        ok = _is_number(flat.get(name, 1)) and 0 < flat.get(name, 1)
        _expect(ok, name, flat, "a number above 0")
    name = "model.ngram_share"
    ok = _is_number(flat.get(name, 0)) and 0 <= flat.get(name, 0) <= 1
    _expect(ok, name, flat, "a number from 0 to 1")
    for name in ("optimizer.clip_norm", "checkpoint.every_minutes"):
        ok = _is_number(flat.get(name, 0)) and 0 <= flat.get(name, 0)
        _expect(ok, name, flat, "0 (never) or more")
    for name in ("data.name", "data.text", "data.label", "optimizer.name"):
        value = flat.get(name, "-")
        _expect(isinstance(value, str) and value != "", name, flat, "a name")
    folder = flat["data.data_dir"]
    _expect(
        folder is None or (isinstance(folder, str) and folder != ""),
        "data.data_dir",
        flat,
        "a folder, or None",
    )
    for name in ("init_from", "teacher", "data.path", "data.validation_path", "data.test_path"):
        _expect(isinstance(flat.get(name, ""), str), name, flat, 'a path, or "" for none')
    if flat.get("teacher") and flat.get("class_weights"):
        raise InputError(
            "config.class_weights is True; expected False with config.teacher: its labels are soft"
        )
    if flat["unlabelled"] and not flat.get("model.ngrams", 1):
        raise InputError(
            "config.unlabelled is True; expected False with config.model.ngrams 0: only the linear model of "
            "n-grams counts in texts without labels"
        )
    pooling = flat.get("model.pooling", POOLINGS)
    ok = isinstance(pooling, list | tuple) and len(pooling) > 0 and set(pooling) <= set(POOLINGS)
    _expect(ok, "model.pooling", flat, f"some of {', '.join(POOLINGS)}")
    for name, value in flat.items():
        _expect(isinstance(value, _PLAIN), name, flat, "a number, a text, a tuple or None")
    if "task" in flat:
        check_size("config.model", flat["vocab_size"] * flat["model.embedding_features"])
        return
    lengths, longest = flat["bucket_lengths"], flat["max_length"]
    ok = (
        isinstance(lengths, Sequence)
        and all(type(length) is int and length > 0 for length in lengths)
        and list(lengths) == sorted(set(lengths))
        and list(lengths[-1:]) == [longest]
    )
    _expect(ok, "bucket_lengths", flat, f"increasing lengths that end with max_length, {longest}")
    _check_memory(flat)
    make_optimizer(**config.optimizer, total_steps=1)


def check_ranges(flat: dict[str, Any]) -> None:
    """Checks those fields of a flat config that are there and have a range by themselves.

    Raises:
        InputError: in one line, naming the field, what it holds and what was expected.
    """
    for name in flat.keys() & _AT_LEAST.keys():
        least, most = _AT_LEAST[name], _AT_MOST.get(name, _LARGEST)
        whole = type(flat[name]) is int
        _expect(whole and flat[name] >= least, name, flat, f"an integer of at least {least}")
        _expect(flat[name] <= most, name, flat, f"an integer of at most {most}")
    for name in flat.keys() & _ONE_OF.keys():
        allowed = _ONE_OF[name]
        ok = any(type(flat[name]) is type(value) and flat[name] == value for value in allowed)
        _expect(ok, name, flat, " or ".join(map(repr, allowed)))
    for name in (*_RATES, "optimizer.b1", "optimizer.b2"):
        ok = _is_number(flat.get(name, 0)) and 0 <= flat.get(name, 0) < 1
        _expect(ok, name, flat, "a number of at least 0 and below 1")


def _check_memory(flat: dict[str, Any]) -> None:
    """Refuses sizes with which the largest arrays, by a low estimate, fit into no memory here."""
    hidden, embedding = flat["model.hidden_features"], flat["model.embedding_features"]
    layers = flat["model.num_layers"] * 8 * hidden * (min(embedding, 2 * hidden) + hidden)
    attention = 4 * hidden * flat["model.attention_units"]
    head = 2 * hidden * flat["model.head_features"]
    check_size(
        "the parameters of config.model", flat["vocab_size"] * embedding + layers + attention + head
    )


@contextlib.contextmanager
def open_workdir(workdir: str | Path, config: ConfigDict, *, lock: bool = True) -> Iterator[Path]:
    """Gives the run's folder, made if need be, with the config in its config.json; locked meanwhile.

    A folder that is there must be empty or hold a run of the same config; hidden files do not
    count. Nothing that is already in it is changed, but for the config of a run that never began
    (its data was not found, for one): that makes way for another.

    Args:
        workdir: the folder; `~` stands for the home folder.
        config: the run's config, checked with `validate_config` first.
        lock: whether other processes are kept out; of the processes of one run, one does that.

    Raises:
        InputError: in one line, when the config is not right, the folder cannot be made or written
            to, holds something else or is in use; a run of another config: naming the fields that
            differ.

    Example:
        >>> with open_workdir("runs/imdb", config) as folder:
        ...     folder
        PosixPath('runs/imdb')
    """
    validate_config(config)
    with claim_workdir(workdir, config.to_dict(), lock=lock) as folder:
        yield folder


@contextlib.contextmanager
def claim_workdir(
    workdir: str | Path, settings: dict[str, Any], *, lock: bool = True
) -> Iterator[Path]:
    """`open_workdir` for settings of any kind: what they hold is not checked."""
    folder = Path(workdir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = _names(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass  # it can be written to, which permission bits alone do not tell
    except OSError as error:
        raise InputError(
            f"run folder {folder}: {error.strerror}; expected a folder that can be written to"
        ) from error
    if names and "config.json" not in names:
        raise InputError(
            f"run folder {folder} holds {names[0]!r} but no config.json; expected an empty"
            " folder or one that holds a run"
        )
    check_folder(folder)
    with locked(folder) if lock else contextlib.nullcontext():
        _write_or_compare(folder, settings)
        yield folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _write_or_compare(folder: Path, settings: dict[str, Any]) -> None:
    """Writes config.json where no run has begun; refuses the folder of a run of another config."""
    file, names = folder / "config.json", _names(folder)
    if not names:
        write_json(file, settings)
        return
    found = read_json(file)
    if not isinstance(found, dict):
        raise InputError(f"{file} is damaged: expected the fields of a config")
    found, wanted = flatten(found), flatten(settings)
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


def flatten(config: ConfigDict | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"model.dropout": 0.5, ...} for nested fields; values stay as they are."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file as `write_text` does.

    A number that is not finite, such as the loss of a run that diverged, is written as null: JSON
    has no NaN.

    Raises:
        InputError: the file cannot be written, for example since the disk is full.
    """
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Writes a text in UTF-8 as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes the whole file or leaves the old one as it was, also when the machine goes down.

    Raises:
        InputError: the file cannot be written, for example since the disk is full.
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(new, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def read_json(path: str | Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        InputError: the file is missing, cannot be read, is not JSON, or holds a number that no run writes.
    """
    try:
        return parse_json(read_small(Path(path)).decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged: expected JSON, {error}") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # no NaN, no infinity


def _expect(ok: bool, name: str, flat: dict[str, Any], expected: str) -> None:
    if not ok:
        raise InputError(f"config.{name} is {flat[name]!r}; expected {expected}")


def _show(flat: dict[str, Any], name: str) -> str:
    return json.dumps(flat[name]) if name in flat else "nothing"
