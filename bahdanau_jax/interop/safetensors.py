"""Reads and writes a module's weights by name, as NumPy arrays and as SafeTensors; checks every shape."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.safe_files import write_bytes


def weights_of(module: nnx.Module) -> dict[str, np.ndarray]:
    """Returns every parameter by its name.

    Example:
      >>> from flax import nnx
      >>> weights = weights_of(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> {name: x.shape for name, x in sorted(weights.items())}
      {'bias': (3,), 'kernel': (2, 3)}
    """
    return {name: np.asarray(leaf) for name, leaf in _named(module).items()}


def set_weights(module: nnx.Module, weights: Mapping[str, np.ndarray], *, where: str) -> None:
    """Replaces all parameters of a module; every shape must match.

    Args:
      module: is changed.
      weights: by name, as `weights_of` returns them.
      where: their source, for the message.

    Raises:
      InputError: a weight is missing, unknown or of another shape.
    """
    state = nnx.state(module, nnx.Param)
    found, wanted = dict(weights), _named(module)
    for name in sorted(found.keys() | wanted.keys()):
        has, needs = (x[name].shape if name in x else "nothing" for x in (found, wanted))
        if has != needs:
            raise InputError(f"{where}: {name} is {has}; expected {needs}")
    pure = jax.tree.map_with_path(
        lambda path, leaf: jnp.asarray(found[_name(path)], leaf.dtype), nnx.to_pure_dict(state)
    )
    nnx.replace_by_pure_dict(state, pure)
    nnx.update(module, state)


def save_safetensors(
    module: nnx.Module, file: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a module's parameters as SafeTensors (github.com/huggingface/safetensors).

    Raises:
      InputError: the file cannot be written.
    """
    from safetensors.numpy import save  # only here: importing layers does not need it

    contiguous = {name: np.ascontiguousarray(x) for name, x in weights_of(module).items()}
    write_bytes(Path(file), save(contiguous, metadata=dict(metadata or {})))


def load_safetensors(module: nnx.Module, file: str | os.PathLike[str]) -> None:
    """Reads a file of `save_safetensors` into a module of the same sizes.

    Raises:
      InputError: the file cannot be read, is not SafeTensors, or its weights do not fit the module.
    """
    set_weights(module, read_safetensors(file), where=str(file))


def read_safetensors(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns the weights by name that a SafeTensors file holds.

    Raises:
      InputError: the file cannot be read or is not SafeTensors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(Path(file).read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{file} is not a SafeTensors file: {error}") from error


def _named(module: nnx.Module) -> dict[str, Any]:
    pure = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    return {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(pure)}


def _name(path: tuple) -> str:
    return ".".join(str(key.key) for key in path)
