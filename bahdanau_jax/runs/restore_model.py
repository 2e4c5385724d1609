"""Reads a model from a run's newest checkpoint, without the optimizer, and changes nothing in the folder."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs import checkpoint_checks as checks
from bahdanau_jax.runs.safe_files import check_size


def restore_model(workdir: Path, model: nnx.Module) -> int:
    """Puts the newest checkpoint's model into `model`, on the first device.

    Random keys keep the implementation with which they were saved, and arrays their dtype; without
    JAX_ENABLE_X64, 64 bits become 32. A run may be writing to the folder.

    Args:
      workdir: the run's folder.
      model: of the checkpoint's shapes; an abstract one, from `nnx.eval_shape`, will do.

    Returns:
      the step of the checkpoint.

    Raises:
      InputError: there is no complete checkpoint, it is damaged, or its shapes are not the model's.

    Example::

        model = nnx.eval_shape(lambda: AttentionClassifier(10_000, rngs=nnx.Rngs(0)))
        step = restore_model(Path("runs/imdb"), model)
    """
    state = nnx.state(model)
    trained = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    step, arrays = restore_part(workdir, nnx.to_pure_dict(state), compared=trained)
    nnx.replace_by_pure_dict(state, arrays)
    nnx.update(model, state)
    return step


def restore_part(workdir: Path, arrays: Any, *, compared: Any = None) -> tuple[int, Any]:
    """Reads some of the model's arrays from a run's newest checkpoint, on the first device.

    Args:
      workdir: the run's folder.
      arrays: nested dicts of arrays, as from `nnx.to_pure_dict`, or of shapes and dtypes.
      compared: those of them whose shapes must be the checkpoint's. None: all. A random key cannot be
        compared, since it is stored as integers.

    Returns:
      the step of the checkpoint, and its arrays of the names in `arrays`.

    Raises:
      InputError: there is no complete checkpoint, it is damaged, or it lacks one of these arrays or has it
        in another shape.
    """
    folder = _newest(workdir)
    expected = checks.shapes(arrays if compared is None else compared)
    metadata = _metadata(folder)
    found = checks.shapes(metadata)
    checks.compare(folder, {path: found.get(path) for path in expected}, expected)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {"0": checks.of_saved_dtypes(arrays, metadata, here)}  # it holds (model, optimizer)
    arguments = ocp.args.PyTreeRestore(
        item=wanted,
        restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
        partial_restore=True,
    )
    with checks.restoring(folder), jax.enable_x64(True):
        restored = ocp.PyTreeCheckpointHandler().restore(
            epath.Path(folder / "state"), args=arguments
        )
    if (folder / "progress").is_dir():  # the first runs saved no digests
        checks.compare_digests(folder, _saved_digests(folder), checks.array_digests(restored))
        checks.compare(folder, checks.dtypes(restored), checks.dtypes(wanted))
    return int(folder.name), jax.tree.map(checks.canonical, restored["0"])


def check_holds_weights(folder: Path, settings: Mapping[str, Any]) -> None:
    """Checks that the settings in a folder are of a run, not of a baseline or a blend, which have no weights.

    Raises:
      InputError: they are not.
    """
    if "method" in settings:
        raise InputError(
            f"{folder} holds the result of {settings['method']!r:.40}; expected the folder of a run, "
            "with its weights"
        )


def _newest(workdir: Path) -> Path:
    folder = (workdir / "checkpoints").absolute()
    steps = checks.complete_steps(folder)
    if not steps:
        raise InputError(f"run folder {workdir} holds no complete checkpoint yet")
    return folder / str(steps[0])


def _metadata(folder: Path) -> Any:
    with checks.restoring(folder):
        metadata = ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder / "state")).tree["0"]
        checks.check_chunks(folder, metadata)
        shapes = checks.shapes(metadata)
    check_size(f"the arrays of {folder}", sum(map(math.prod, shapes.values())))
    return metadata


def _saved_digests(folder: Path) -> dict[str, str]:
    with checks.restoring(folder):
        progress: Any = ocp.JsonCheckpointHandler().restore(epath.Path(folder / "progress"))
        checks.check_progress(folder, int(folder.name), progress)
        return progress["arrays"]
