"""Whether a run that was disturbed ended with the same bits as one that was not."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from bahdanau_jax.workdir import read_json

BY_THE_CLOCK = ("seconds", "examples_per_second")  # fields of metrics.jsonl
FIELDS = ("dataset", "label_names", "splits", "seed", "epochs", "steps", "skipped_steps", "best")


def differences(run: Path, undisturbed: Path) -> list[str]:
    """What differs between two finished runs' folders but for the time that things took; [] is all well.

    Compared are all arrays of the last checkpoint (parameters, optimizer, rng streams), metrics.jsonl
    line by line, the predictions byte by byte, and result.json's figures.
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
    """The lines of metrics.jsonl without what a clock measured."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [_without_time(line) for line in lines]


def _without_time(line: str) -> str:
    fields = json.loads(line)
    return json.dumps({name: x for name, x in fields.items() if name not in BY_THE_CLOCK})


def _last_arrays(run: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """dtype, shape and bytes of everything in the newest checkpoint, read without this project's code."""
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
