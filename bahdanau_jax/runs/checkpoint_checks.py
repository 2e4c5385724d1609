"""Checks that a checkpoint is whole: shapes and dtypes of its arrays, and the digests saved with it."""

import contextlib
import errno
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from bahdanau_jax.errors import InputError, one_line
from bahdanau_jax.runs import fingerprints


class OtherFlags(InputError):
    """The checkpoint is whole, but this process runs JAX with other flags than the run."""


@contextlib.contextmanager
def restoring(where: str | Path) -> Iterator[None]:
    """Turns any error of Orbax or TensorStore on a damaged file into one line that names the checkpoint."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot restore {where}: {short_message(error)}") from error


def short_message(error: BaseException) -> str:
    """An error of Orbax or TensorStore in one line, without the inner files that TensorStore lists."""
    text = one_line(error).partition(" [tensorstore_spec")[0]
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(code) in text:
            return os.strerror(code)
    return text if len(text) <= 300 else f"{text[:140]} ... {text[-150:]}"


def complete_steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, newest first; their files may still be damaged.

    Orbax writes a checkpoint under another name and renames it when it is complete.
    """
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(x) for x in names if x.isdecimal() and x == str(int(x))), reverse=True)


def array_digests(tree: Any) -> dict[str, str]:
    """The digest of each array by its path."""
    return {
        _path(path): fingerprints.of_array(leaf) for path, leaf in jax.tree.leaves_with_path(tree)
    }


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array by its path, such as {"output.bias": (1,)}."""
    return {_path(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}


def dtypes(tree: Any) -> dict[str, str]:
    """The dtype of each array by its path; that of a random key is "key", whatever its implementation."""
    return {
        _path(path): "key" if _is_key(leaf) else str(leaf.dtype)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def stored_as(tree: Any, found: Mapping[str, tuple[int, ...]]) -> Any:
    """Shapes, dtypes and shardings as Orbax stores a tree; random keys as long as the ones in `found`.

    A key is stored as integers. Their number depends on its implementation, which may not be this process's.
    """

    def stored(path: tuple, leaf: Any) -> jax.ShapeDtypeStruct:
        struct: Any = ocp.utils.to_shape_dtype_struct(leaf)
        if _is_key(leaf):
            return struct.update(shape=(*leaf.shape, *found.get(_path(path), ())[-1:]))
        return struct

    return jax.tree.map_with_path(stored, tree)


def of_saved_dtypes(tree: Any, metadata: Any, sharding: Any) -> Any:
    """The arrays' shapes with the dtypes of `metadata`: the tree's own depend on JAX_ENABLE_X64."""
    saved = {_path(path): leaf.dtype for path, leaf in jax.tree.leaves_with_path(metadata)}
    return jax.tree.map_with_path(
        lambda path, x: jax.ShapeDtypeStruct(
            x.shape, x.dtype if _is_key(x) else saved[_path(path)], sharding=sharding
        ),
        tree,
    )


def canonical(array: Any) -> Any:
    """The array in a dtype that JAX_ENABLE_X64 allows here; only where it is off is anything changed."""
    if _is_key(array) or array.dtype == jax.dtypes.canonicalize_dtype(array.dtype):
        return array
    return jnp.asarray(np.asarray(array))


def compare(where: str | Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises InputError if shapes or dtypes differ from those of the model."""
    for path in sorted(expected.keys() | found.keys()):
        if found.get(path) != expected.get(path):
            kind = "dtype" if isinstance(expected.get(path), str) else "shape"
            raise InputError(
                f"cannot restore {where}: {path} has {kind} {found.get(path)} in the checkpoint, "
                f"{expected.get(path)} in the model"
            )


def compare_digests(where: str | Path, saved: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises InputError if an array is not what was saved."""
    for path in sorted(found):
        if saved.get(path) != found[path]:
            raise InputError(f"cannot restore {where}: {path} is not what was saved")


def compare_implementations(where: str | Path, found: Any, expected: Any) -> None:
    """Raises OtherFlags if the random keys of two trees have different implementations."""
    for saved, own in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if _is_key(saved) and saved.dtype != own.dtype:
            saved, own = jax.random.key_impl(saved), jax.random.key_impl(own)
            raise OtherFlags(
                f"cannot resume from {where}: its random keys are {saved}, those of this process {own}; "
                f"expected JAX_DEFAULT_PRNG_IMPL={saved}, as the run began"
            )


def compare_widths(where: str | Path, found: Any, expected: Any) -> None:
    """Raises OtherFlags if arrays have 64 bits in one of two trees and 32 in the other."""
    saved, own = dtypes(found), dtypes(expected)
    for path, dtype in own.items():
        if {saved.get(path), dtype} in ({"float32", "float64"}, {"int32", "int64"}):
            asked = int(saved[path].endswith("64"))
            raise OtherFlags(
                f"cannot resume from {where}: {path} is {saved[path]}, in this process {dtype}; "
                f"expected JAX_ENABLE_X64={asked}, as the run began"
            )


def check_progress(where: str | Path, step: int, progress: Any) -> None:
    """Raises InputError if the progress of a checkpoint is not what was saved at this step."""
    if not isinstance(progress, dict) or progress.get("sha256") != fingerprints.of_json(
        {name: value for name, value in progress.items() if name != "sha256"}
    ):
        raise InputError(f"cannot restore {where}: its progress is not what was saved")
    if progress["step"] != step:
        raise InputError(f"cannot restore {where}: it is the checkpoint of step {progress['step']}")
    if progress["batches"] != {"next_index": step}:
        raise InputError(f"cannot restore {where}: the data's position is not that of step {step}")
    if not isinstance(progress["arrays"], dict) or not isinstance(progress["measured"], dict):
        raise InputError(f"cannot restore {where}: its progress is not what was saved")


def check_chunks(where: str | Path, metadata: Any) -> None:
    """Raises InputError if a chunk is larger than its array: TensorStore would allocate it unread."""
    for path, leaf in jax.tree.leaves_with_path(metadata):
        chunk = getattr(getattr(leaf, "storage", None), "chunk_shape", None)
        if chunk and math.prod(chunk) > max(math.prod(leaf.shape), 1):
            raise InputError(
                f"cannot restore {where}: {_path(path)} is stored in chunks of {chunk}"
            )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _path(path: tuple) -> str:
    # Orbax's metadata names list entries and integer keys as strings.
    return ".".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)
