"""Compares a disturbed run with an undisturbed one, bit by bit."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from bahdanau_jax.runs.safe_files import read_json

TIMES = ("seconds", "examples_per_second")  # fields of metrics.jsonl
FIELDS = ("dataset", "label_names", "splits", "seed", "epochs", "steps", "skipped_steps", "best")


def differences(run: Path, undisturbed: Path) -> list[str]:
    """Names what differs between the folders of two finished runs, except times; [] if nothing does.

    Compares all arrays of the last checkpoint (parameters, optimizer, rng streams), the lines of
    metrics.jsonl, the bytes of the predictions, and the figures of result.json.
    """
    found = []
    ours, theirs = _last_arrays(run), _last_arrays(undisturbed)
    found += [
        f"the last checkpoint's {name}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    ours, theirs = metrics(run), metrics(undisturbed)
    if ours != theirs:
        pairs = zip(ours, theirs, strict=False)
        line = next((i for i, (a, b) in enumerate(pairs, 1) if a != b), min(len(ours), len(theirs)))
        found.append(f"metrics.jsonl ({len(ours)} and {len(theirs)} lines), from line {line} on")
    for name in ("predictions.jsonl", "vocabulary.json", "config.json", "data.json"):
        if (run / name).read_bytes() != (undisturbed / name).read_bytes():
            found.append(name)
    ours, theirs = read_json(run / "result.json"), read_json(undisturbed / "result.json")
    return found + [f"result.json's {name}" for name in FIELDS if ours[name] != theirs[name]]


def metrics(run: Path) -> list[str]:
    """The lines of metrics.jsonl without times."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        json.dumps({name: x for name, x in json.loads(line).items() if name not in TIMES})
        for line in lines
    ]


def _last_arrays(run: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """dtype, shape and bytes of every array in the newest checkpoint, read without this project's code."""
    steps = [int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdecimal()]
    with ocp.StandardCheckpointer() as checkpointer:
        tree: Any = checkpointer.restore(
            (run / "checkpoints" / str(max(steps)) / "state").absolute()
        )
    arrays = {"step": ("int", (), str(max(steps)).encode())}
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        arrays[jax.tree_util.keystr(path)] = str(array.dtype), array.shape, array.tobytes()
    return arrays
