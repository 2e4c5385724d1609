"""The weights of the notebook's network in Keras 3's files, `.keras` and `.weights.h5`: read, and put back.

Keras itself is not needed, h5py is. What `convert.classifier_from_keras` takes is in the order of the network;
a file has each kind of layer numbered (bidirectional, bidirectional_1) and a layer's parts by their attributes
(W1, W2, V), whatever the layers were called.
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

ENDINGS = (".keras", ".weights.h5")
_INSIDE = "model.weights.h5"  # of the zip that a .keras file is
_CELLS = ("forward_layer/cell", "backward_layer/cell")
_ATTENTION = ("w1", "w2", "v")


def read_keras(file: str | Path) -> list[list[np.ndarray]]:
    """The weights of each layer, as `convert.classifier_from_keras` takes them.

    Raises:
      InputError: the file cannot be read, or holds no network such as the notebook's.

    Example::

        classifier_from_keras(read_keras("notebook.keras"), model)
    """
    with _open(_weights_file(Path(file)), file) as found:
        return [[np.asarray(found[name]) for name in layer] for layer in _names(found, file)]


def write_keras(
    file: str | Path, layers: Sequence[Sequence[np.ndarray]], *, like: str | Path
) -> None:
    """Writes a copy of the Keras file `like` with other weights, which `convert.classifier_to_keras` gives.

    Layers, names and optimizer stay those of `like`, so the code that loads `like` loads the copy.

    Raises:
      InputError: `like` cannot be read, the file not be written, or the weights have other shapes.
    """
    file, like = Path(file), Path(like)
    content = _weights_file(like)
    with _open(content, like, "r+") as found:
        names = _names(found, like)
        if [len(x) for x in names] != [len(x) for x in layers]:
            raise InputError(f"{like} holds a network of other layers than the weights are for")
        for name, value in zip(sum(names, []), (x for layer in layers for x in layer), strict=True):
            if found[name].shape != value.shape:
                raise InputError(f"{like}: {name} is {found[name].shape}; expected {value.shape}")
            found[name][...] = value
    try:
        if not _is_zip(file):
            file.write_bytes(content.getvalue())
            return
        if not _is_zip(like):
            raise InputError(f"{like} has no config to put into {file}; expected a .keras file")
        with zipfile.ZipFile(like) as source, zipfile.ZipFile(file, "w") as target:
            for part in source.namelist():
                target.writestr(part, content.getvalue() if part == _INSIDE else source.read(part))
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from error


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
        import h5py  # which comes with Keras
    except ImportError as error:
        raise InputError("Keras's files need h5py: pip install h5py") from error
    try:
        return h5py.File(content, mode)
    except OSError as error:
        raise InputError(f"{file} holds no HDF5 of Keras's: {error}") from error


def _names(found: Any, file: str | Path) -> list[list[str]]:
    """Where each layer's weights stand in the file, in the order of the network."""
    if "layers" not in found:
        raise InputError(
            f"{file} has no group 'layers'; expected what Keras 3's save or save_weights writes"
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
    """Of bidirectional 0, of bidirectional_1 1."""
    end = re.search(r"_(\d+)$", name)
    return int(end[1]) if end else 0
