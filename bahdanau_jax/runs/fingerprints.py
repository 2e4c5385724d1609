"""SHA-256 digests of arrays, JSON values and data sets, with which resume checks what it restores."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.tokenizer import each_text
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.safe_files import read_json, write_json


def of_array(array: jax.Array | np.ndarray) -> str:
    """The digest of an array's dtype, shape and values; the array is whole on this process's devices.

    Example:
      >>> of_array(np.zeros(2, np.float32))[:8], of_array(np.zeros(2, np.int32))[:8]
      ('d26c7653', '886ef8cb')
    """
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    values = np.ascontiguousarray(jax.device_get(array))
    digest = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def of_json(value: Any) -> str:
    """The digest of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def of_examples(examples: Examples) -> str:
    """The digest of texts, labels and ids, in order."""
    digest = hashlib.sha256(np.asarray(examples.labels, "<i4").tobytes())
    for strings in (each_text(examples.texts), examples.ids):
        for string in strings:
            data = string.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))  # "ab", "c" is not "a", "bc"
            digest.update(data)
    return digest.hexdigest()


def of_data(dataset: Dataset, vocabulary: Vocabulary) -> dict[str, Any]:
    """Names and digests of a run's data, as data.json keeps them; the test split is not read."""
    words, learned = vocabulary.words, vocabulary.options
    named = [words, learned] if learned else words
    return {
        "data set": {"name": dataset.name, "labels": list(dataset.label_names)},
        "train": {"reviews": len(dataset.train), "sha256": of_examples(dataset.train)},
        "validation": {
            "reviews": len(dataset.validation),
            "sha256": of_examples(dataset.validation),
        },
        "vocabulary": {"words": len(vocabulary.words), "sha256": of_json(named)},
    }


def keep_or_compare(file: Path, data: dict[str, Any], *, begun: bool) -> None:
    """Writes data.json; for a run that has begun, compares with it instead.

    Args:
      file: data.json in the run's folder.
      data: the result of `of_data`, and of `flags.numeric_flags`, which 0.2 did not keep.
      begun: whether the run has a checkpoint.

    Raises:
      InputError: the data, the vocabulary or a flag differs from what the run began with; names the difference.
    """
    if not begun or not file.exists():
        write_json(file, data)
        return
    kept = read_json(file)
    if not isinstance(kept, dict):
        raise InputError(f"{file} is damaged: expected the digests of the run's data")
    for name, found in data.items():
        if kept.get(name) != found and (name in kept or not name.startswith("JAX_")):
            raise InputError(
                f"{name} is not what this run began with: {_show(kept.get(name))} in {file}, "
                f"{_show(found)} now; expected the same, or another --workdir"
            )


def _show(value: Any) -> str:
    # Enough of a digest to distinguish two.
    if isinstance(value, dict) and isinstance(value.get("sha256"), str):
        value = value | {"sha256": value["sha256"][:12]}
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
