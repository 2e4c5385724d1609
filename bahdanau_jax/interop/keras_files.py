"""Reads and replaces the weights of the notebook's network in Keras 3 files, `.keras` and `.weights.h5`.

This needs h5py, not Keras. `convert.classifier_from_keras` takes the weights in the order of the network. A
file numbers the layers of each kind (bidirectional, bidirectional_1) and names a layer's parts by their
attributes (W1, W2, V), whatever names the layers had.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.safe_files import write_bytes

ENDINGS = (".keras", ".weights.h5")
_INSIDE = "model.weights.h5"  # a .keras file is a zip that holds this file
_CELLS = ("forward_layer/cell", "backward_layer/cell")
_ATTENTION = ("w1", "w2", "v")


def read_keras(file: str | Path) -> list[list[np.ndarray]]:
    """Returns the weights of each layer, as `convert.classifier_from_keras` takes them.

    Raises:
      InputError: the file cannot be read, or holds another network than the notebook's.

    Example::

        classifier_from_keras(read_keras("notebook.keras"), model)
    """
    with _open(_weights_file(Path(file)), file) as found:
        return [[np.asarray(found[name]) for name in layer] for layer in _names(found, file)]


def write_keras(
    file: str | Path, layers: Sequence[Sequence[np.ndarray]], *, like: str | Path
) -> None:
    """Writes a copy of the Keras file `like` with other weights.

    The copy keeps the layers, names and optimizer of `like`, so code that loads `like` also loads the copy.

    Args:
      file: the copy.
      layers: the weights, as `convert.classifier_to_keras` returns them.
      like: a Keras file of the same network.

    Raises:
      InputError: `like` cannot be read, `file` cannot be written, or the weights have other shapes.
    """
    file, like = Path(file), Path(like)
    content = _weights_file(like)
    with _open(content, like, "r+") as found:
        names = _names(found, like)
        if [len(x) for x in names] != [len(x) for x in layers]:
            raise InputError(f"{like} has other layers than the weights; expected the same network")
        for name, value in zip(sum(names, []), (x for layer in layers for x in layer), strict=True):
            if found[name].shape != value.shape:
                raise InputError(f"{like}: {name} is {found[name].shape}; expected {value.shape}")
            found[name][...] = value
    if _is_zip(file):
        if not _is_zip(like):
            raise InputError(f"{like} has no config to put into {file}; expected a .keras file")
        content = _with_weights(like, content.getvalue())
    write_bytes(file, content.getvalue())


def _with_weights(like: Path, weights: bytes) -> io.BytesIO:
    """A copy of a .keras file with other weights."""
    copy = io.BytesIO()
    with zipfile.ZipFile(like) as source, zipfile.ZipFile(copy, "w") as target:
        for part in source.namelist():
            target.writestr(part, weights if part == _INSIDE else source.read(part))
    return copy


def _is_zip(file: Path) -> bool:
    return file.suffix == ".keras"


def _weights_file(file: Path) -> io.BytesIO:
    try:
        if not _is_zip(file):
            return io.BytesIO(file.read_bytes())
        with zipfile.ZipFile(file) as parts:
            return io.BytesIO(parts.read(_INSIDE))
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{file} cannot be read as a Keras 3 file: {reason}") from error


def _open(content: io.BytesIO, file: str | Path, mode: str = "r") -> Any:
    try:
        import h5py  # Keras installs it
    except ImportError as error:
        raise InputError("Keras files need h5py: pip install h5py") from error
    try:
        return h5py.File(content, mode)
    except OSError as error:
        raise InputError(f"{file} does not hold Keras's HDF5: {error}") from error


def _names(found: Any, file: str | Path) -> list[list[str]]:
    """The paths of each layer's weights in the file, in the order of the network."""
    if "layers" not in found:
        raise InputError(
            f"{file} has no group 'layers'; expected a file of Keras 3's save or save_weights"
        )
    kinds: dict[str, list[list[str]]] = {x: [] for x in ("embedding", "lstm", "attention", "dense")}
    for layer in sorted(found["layers"], key=_number):
        at = f"layers/{layer}"
        own = _variables(found, at)
        cells = [_variables(found, f"{at}/{cell}") for cell in _CELLS]
        parts = {name.lower(): _variables(found, f"{at}/{name}") for name in found[at]}
        if all(len(x) == 3 for x in cells):
            kinds["lstm"].append(cells[0] + cells[1])
        elif len(own) in (1, 2):
            kinds["embedding" if len(own) == 1 else "dense"].append(own)
        elif any(parts.values()):
            if not all(len(parts.get(name, [])) == 2 for name in _ATTENTION):
                raise InputError(
                    f"{file}: {at} holds {', '.join(found[at])}; expected an attention's Dense layers W1 "
                    "(outputs), W2 (state) and V"
                )
            kinds["attention"].append([x for name in _ATTENTION for x in parts[name]])
    counts = {kind: len(layers) for kind, layers in kinds.items()}
    if counts != {"embedding": 1, "lstm": max(counts["lstm"], 1), "attention": 1, "dense": 2}:
        raise InputError(
            f"{file} holds {counts['embedding']} embeddings, {counts['lstm']} Bidirectional(LSTM), "
            f"{counts['attention']} attention layers and {counts['dense']} Dense; expected 1, at least 1, 1, 2"
        )
    return [layer for kind in kinds.values() for layer in kind]


def _variables(found: Any, at: str) -> list[str]:
    variables = found.get(f"{at}/vars")
    return [] if variables is None else [f"{at}/vars/{i}" for i in sorted(variables, key=int)]


def _number(name: str) -> int:
    """0 for bidirectional, 1 for bidirectional_1."""
    end = re.search(r"_(\d+)$", name)
    return int(end[1]) if end else 0
