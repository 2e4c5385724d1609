"""Checkpoints of a run: model, optimizer, rng streams, data iterator and what was measured so far.

All of it is in every checkpoint, so a run that was killed goes on to the same bits. Orbax writes in the
background, and a checkpoint counts only once it is complete. Nothing is pickled.
"""

import errno
import os
from pathlib import Path
from typing import Any

import grain
import grain.checkpoint
import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx

from bahdanau_jax.errors import InputError


class Checkpoints:
    """The folder `checkpoints/` of a run, through Orbax's CheckpointManager.

    Example (`state` is any pytree of arrays, such as `nnx.state((model, optimizer))`)::

        with Checkpoints(workdir, keep=2) as checkpoints:
            checkpoints.save(50, state, iterator, {"loss_sum": 1.5})
            step, state, measured = checkpoints.restore_latest(state, iterator)
    """

    def __init__(self, workdir: Path, *, keep: int = 2):
        self._folder = (workdir / "checkpoints").absolute()
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"{self._folder} is a file; expected a folder of checkpoints")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            single_host_load_and_broadcast=False,
            # A half-written checkpoint of a run that was killed is of no use to anyone.
            cleanup_tmp_directories=True,
        )
        try:
            # Handlers by name: without them nothing can be known of a folder before it is restored.
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=options,
                item_handlers={  # pyright: ignore[reportArgumentType]
                    "state": ocp.StandardCheckpointHandler(),
                    "batches": grain.checkpoint.CheckpointHandler(),
                    "measured": ocp.JsonCheckpointHandler(),
                },
            )
        except OSError as error:
            raise InputError(f"cannot write {self._folder}: {error.strerror or error}") from error

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(
        self, step: int, state: Any, iterator: grain.DatasetIterator, measured: dict[str, Any]
    ) -> None:
        """Starts to save; the device arrays have been copied when this returns, the files come later.

        Args:
          step: optimizer steps done.
          state: NNX state.
          iterator: the training batches' iterator; its position is saved.
          measured: what was measured that no file holds yet, as JSON can hold it.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(nnx.to_pure_dict(state)),
            batches=grain.checkpoint.CheckpointSave(iterator),
            measured=ocp.args.JsonSave(measured),
        )
        try:
            self._manager.save(step, args=items)
        except (OSError, ValueError) as error:
            # Also where the write before this one failed in the background, on a full disk for one.
            raise InputError(f"cannot save {self._folder}/{step}: {_one_line(error)}") from error

    def restore_latest(
        self, state: Any, iterator: grain.DatasetIterator
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Restores the newest checkpoint; None where there is none.

        Args:
          state: NNX state of the shapes, dtypes and shardings to restore.
          iterator: is moved to the saved position.

        Returns:
          (step, state, measured).

        Raises:
          InputError: where the checkpoint's arrays have other shapes than `state`, or it is damaged.
        """
        step = self.latest_step()
        if step is None:
            return None
        where = f"{self._folder}/{step}"
        before = [other for other in self._manager.all_steps() if other < step]
        ways_on = f"step {max(before)}" if before else "the start"
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, nnx.to_pure_dict(state))
        try:
            self._check_shapes(step, abstract)
            items = ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract),
                batches=grain.checkpoint.CheckpointRestore(iterator),
                measured=ocp.args.JsonRestore(),
            )
            restored = self._manager.restore(step, args=items)
        except InputError:
            raise
        except Exception as error:  # whatever a damaged file makes Orbax or TensorStore raise
            raise InputError(
                f"cannot restore {where}: {_one_line(error)}; remove this folder to go on from {ways_on}"
            ) from error
        nnx.replace_by_pure_dict(state, restored["state"])
        return step, state, restored["measured"]

    def _check_shapes(self, step: int, abstract: Any) -> None:
        found = self._manager.item_metadata(step)["state"]
        if found is None:
            raise InputError(f"cannot restore {self._folder}/{step}: its list of arrays is damaged")
        _compare(f"{self._folder}/{step}", _shapes(found), _shapes(abstract))

    def wait(self) -> None:
        """Waits until what was saved is on disk."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise InputError(f"cannot save in {self._folder}: {_one_line(error)}") from error

    def close(self) -> None:
        """Waits, then ends the background threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def saved_shapes(workdir: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the model's arrays in a run's newest checkpoint, as {"output.bias": (1,), ...}.

    Raises:
      InputError: there is no complete checkpoint, or its list of arrays is damaged.
    """
    folder = _newest_state(workdir)
    try:
        return _shapes(ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree["0"])
    except Exception as error:  # whatever a damaged file makes Orbax raise
        raise InputError(f"cannot restore {folder.parent}: {_one_line(error)}") from error


def restore_model(workdir: Path, model: nnx.Module) -> int:
    """Puts the newest checkpoint's model into `model`, on the first device; only reads.

    Unlike `Checkpoints` it asks for neither optimizer nor data iterator, and leaves the folder as it
    is: a run may be writing to it.

    Args:
      workdir: the run's folder.
      model: of the checkpoint's shapes; an abstract one, from `nnx.eval_shape`, will do.

    Returns:
      the step of the checkpoint.

    Raises:
      InputError: there is no complete checkpoint, it is damaged, or of other shapes than `model`.

    Example::

        model = nnx.eval_shape(lambda: AttentionClassifier(10_000, rngs=nnx.Rngs(0)))
        step = restore_model(Path("runs/imdb"), model)
    """
    folder = _newest_state(workdir)
    parameters = _shapes(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    found = saved_shapes(workdir)
    # Of the parameters only: a random key is listed as the integers that it is stored as.
    _compare(str(folder.parent), {path: found.get(path) for path in parameters}, parameters)
    state = nnx.state(model)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), nnx.to_pure_dict(state)
    )
    # What was saved is (model, optimizer).
    wanted = {"0": abstract}
    arguments = ocp.args.PyTreeRestore(
        item=wanted,
        restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
        partial_restore=True,
    )
    try:
        restored = ocp.PyTreeCheckpointHandler().restore(epath.Path(folder), args=arguments)
    except Exception as error:  # whatever a damaged file makes Orbax or TensorStore raise
        raise InputError(f"cannot restore {folder.parent}: {_one_line(error)}") from error
    nnx.replace_by_pure_dict(state, restored["0"])
    nnx.update(model, state)
    return int(folder.parent.name)


def _newest_state(workdir: Path) -> Path:
    checkpoints = (workdir / "checkpoints").absolute()
    steps = ocp.utils.checkpoint_steps(checkpoints) if checkpoints.is_dir() else []
    if not steps:
        raise InputError(f"run folder {workdir} holds no complete checkpoint yet")
    return checkpoints / str(max(steps)) / "state"


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {_path(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}


def _compare(where: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for path in sorted(expected.keys() | found.keys()):
        if found.get(path) != expected.get(path):
            raise InputError(
                f"{where}: {path} has shape {found.get(path)} in the checkpoint, "
                f"the model's is {expected.get(path)}"
            )


def _path(path: tuple) -> str:
    # Orbax's metadata names list entries and integer keys as strings.
    return ".".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)


def _one_line(error: BaseException) -> str:
    text = str(error).partition(" [tensorstore_spec")[0]
    text = " ".join(text.split()) or type(error).__name__
    # TensorStore names several inner files before it comes to the reason.
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if os.strerror(code) in text:
            return os.strerror(code)
    return text if len(text) <= 300 else f"{text[:140]} ... {text[-150:]}"
