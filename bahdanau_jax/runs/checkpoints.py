"""Checkpoints of a run: model, optimizer, rng streams, data iterator and what was measured so far.

All of it is in every checkpoint, so a run that was killed goes on to the same bits. Orbax writes in the
background, and a checkpoint counts only once it is complete. With it goes a digest of everything in it:
one that was damaged afterwards is told from a good one, whatever the damage. Nothing is pickled.
"""

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs import fingerprints, multihost
from bahdanau_jax.runs.safe_files import check_size


class Checkpoints:
    """The folder `checkpoints/` of a run, through Orbax's CheckpointManager.

    Attributes:
      notices: a line for each checkpoint that was found damaged or half-written.

    Example (`state` is any pytree of arrays, such as `nnx.state((model, optimizer))`)::

        with Checkpoints(workdir, keep=2) as checkpoints:
            checkpoints.save(50, state, iterator, {"loss_sum": 1.5}, best_step=50)
            step, state, measured = checkpoints.restore_latest(state, iterator)
    """

    def __init__(self, workdir: Path, *, keep: int = 2):
        self._folder = (workdir / "checkpoints").absolute()
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"{self._folder} is a file; expected a folder of checkpoints")
        self._saving: int | None = None
        self._kept = _LatestAndBest(keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._kept,
            single_host_load_and_broadcast=False,
            # A half-written checkpoint of a run that was killed is of no use to anyone.
            cleanup_tmp_directories=True,
        )
        try:
            self.notices = [
                f"the checkpoint {path.name.partition('.')[0]} was half-written when the run was "
                "stopped: dropped"
                for path in sorted(self._folder.glob("*.orbax-checkpoint-tmp*"))
            ]
            # Handlers by name: without them nothing can be known of a folder before it is restored.
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=options,
                item_handlers={  # pyright: ignore[reportArgumentType]
                    "state": ocp.StandardCheckpointHandler(),
                    "progress": ocp.JsonCheckpointHandler(),
                },
            )
        except OSError as error:
            raise InputError(f"cannot write {self._folder}: {error.strerror or error}") from error

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, newest first; whether they are whole is not known."""
        return _steps(self._folder)

    def save(
        self,
        step: int,
        state: Any,
        iterator: grain.DatasetIterator,
        measured: dict[str, Any],
        *,
        best_step: int | None = None,
    ) -> None:
        """Starts to save; the device arrays have been copied when this returns, the files come later.

        Args:
          step: optimizer steps done.
          state: NNX state.
          iterator: the training batches' iterator; its position is saved.
          measured: what was measured that no file holds yet, as JSON can hold it.
          best_step: the step of the best checkpoint so far, which is kept beside the latest ones.

        Raises:
          InputError: this one, or the one before it, cannot be written; names the one that is kept.
        """
        self.wait()
        self._kept.best_step = best_step
        arrays = nnx.to_pure_dict(state)
        progress: dict[str, Any] = {
            "step": step,
            "batches": iterator.get_state(),
            "measured": measured,
            "arrays": _array_digests(arrays),
        }
        progress["sha256"] = fingerprints.of_json(progress)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(progress)
        )
        self._saving = step
        try:
            self._manager.save(step, args=items)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._cannot_save(error) from error

    def restore_latest(
        self, state: Any, iterator: grain.DatasetIterator
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Restores the newest checkpoint that is whole; None where there is none at all.

        Damaged ones that are newer are set aside, under another name, with a line in `notices`.

        Args:
          state: NNX state of the shapes, dtypes and shardings to restore.
          iterator: is moved to the saved position.

        Returns:
          (step, state, measured).

        Raises:
          InputError: where every checkpoint is damaged, or of other shapes than `state`.
        """
        damaged: dict[int, InputError] = {}
        for step in self.steps():
            arrays, progress, reason = {}, {}, None
            try:
                arrays, progress = self._restore(step, state, iterator)
            except InputError as error:
                reason = error
            if multihost.any_of(reason is not None):
                where = f"{self._folder}/{step}"
                damaged[step] = reason or InputError(f"another process cannot restore {where}")
                continue
            for other, reason in damaged.items():
                aside = f"{other}.damaged"
                if multihost.is_first():
                    self._set_aside(other, aside)
                self.notices.append(f"{reason}; kept as {aside}, going on from step {step}")
            multihost.any_of(False)  # the others wait for the renaming
            self._manager.reload()
            nnx.replace_by_pure_dict(state, arrays)
            return step, state, progress["measured"]
        if damaged:
            reasons = "; ".join(map(str, damaged.values()))
            raise InputError(f"{reasons}; none is left: remove {self._folder} to start anew")
        return None

    def _restore(
        self, step: int, state: Any, iterator: grain.DatasetIterator
    ) -> tuple[Any, dict[str, Any]]:
        """(arrays, progress) of one checkpoint, compared with their digests; moves the iterator."""
        where = f"{self._folder}/{step}"
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, nnx.to_pure_dict(state))
        with _restoring(where):
            found = self._manager.item_metadata(step)["state"]
            if found is None:
                raise InputError(f"cannot restore {where}: its list of arrays is damaged")
            _compare(where, _shapes(found), _shapes(abstract))
            _check_chunks(where, found)
            items = ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
            )
            restored = self._manager.restore(step, args=items)
            arrays, progress = restored["state"], restored["progress"]
            _check_progress(where, step, progress)
            _compare_digests(where, progress["arrays"], _array_digests(arrays))
            # A random key whose description is lost comes as the integers that it is stored as.
            _compare(where, _dtypes(arrays), _dtypes(nnx.to_pure_dict(state)))
            iterator.set_state(progress["batches"])
            return arrays, progress

    def _set_aside(self, step: int, name: str) -> None:
        aside = self._folder / name
        try:
            if aside.exists():  # of an earlier fault
                shutil.rmtree(aside)
            os.rename(self._folder / str(step), aside)
        except OSError as error:
            raise InputError(f"cannot rename {self._folder}/{step}: {error.strerror}") from error

    def _cannot_save(self, error: Exception) -> InputError:
        multihost.check_peers(error)
        kept = [step for step in self.steps() if step != self._saving][:1]
        return InputError(
            f"cannot save {self._folder}/{self._saving}: {_one_line(error)}; "
            + (f"the checkpoint of step {kept[0]} is kept" if kept else "there is none before it")
        )

    def wait(self) -> None:
        """Waits until what was saved is on disk."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._cannot_save(error) from error

    def close(self) -> None:
        """Waits, then ends the background threads."""
        try:
            self._manager.close()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._cannot_save(error) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _LatestAndBest(ocp.checkpoint_managers.PreservationPolicy):
    """Which checkpoints stay when a new one is complete."""

    def __init__(self, keep: int):
        self.best_step: int | None = None
        self._latest = ocp.checkpoint_managers.LatestN(keep)

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        latest = self._latest.should_preserve(checkpoints, context=context)
        return [
            new or found.step == self.best_step
            for new, found in zip(latest, checkpoints, strict=True)
        ]


def saved_shapes(workdir: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the model's arrays in a run's newest checkpoint, as {"output.bias": (1,), ...}.

    Raises:
      InputError: there is no complete checkpoint, or its list of arrays is damaged.
    """
    folder = _newest_state(workdir)
    with _restoring(folder.parent):
        metadata = ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree["0"]
        _check_chunks(str(folder.parent), metadata)
        shapes = _shapes(metadata)
    count = sum(math.prod(shape) for shape in shapes.values())
    check_size(f"the arrays of {folder.parent}", count)
    return shapes


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
    state = nnx.state(model)
    trained = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    step, arrays = restore_part(workdir, nnx.to_pure_dict(state), compared=trained)
    nnx.replace_by_pure_dict(state, arrays)
    nnx.update(model, state)
    return step


def restore_part(workdir: Path, arrays: Any, *, compared: Any = None) -> tuple[int, Any]:
    """Reads some of the model's arrays from a run's newest checkpoint, on the first device; only reads.

    Args:
      workdir: the run's folder.
      arrays: nested dicts of arrays, as `nnx.to_pure_dict` gives; of shapes and dtypes alone, too.
      compared: those of them whose shapes are listed as they are (a random key is listed as the integers
        that it is stored as); None: all.

    Returns:
      the step of the checkpoint, and the arrays in it of the names that `arrays` has.

    Raises:
      InputError: there is no complete checkpoint, it is damaged, lacks one of these, or has another shape.
    """
    folder = _newest_state(workdir)
    expected = _shapes(arrays if compared is None else compared)
    found = saved_shapes(workdir)
    _compare(str(folder.parent), {path: found.get(path) for path in expected}, expected)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), arrays)
    # What was saved is (model, optimizer).
    wanted = {"0": abstract}
    arguments = ocp.args.PyTreeRestore(
        item=wanted,
        restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
        partial_restore=True,
    )
    with _restoring(folder.parent):
        restored = ocp.PyTreeCheckpointHandler().restore(epath.Path(folder), args=arguments)
    if (folder.parent / "progress").is_dir():  # runs from before there were digests have none
        saved = _saved_digests(folder.parent)
        _compare_digests(str(folder.parent), saved, _array_digests(restored))
        _compare(str(folder.parent), _dtypes(restored), _dtypes(wanted))
    return int(folder.parent.name), restored["0"]


@contextlib.contextmanager
def _restoring(where: str | Path) -> Iterator[None]:
    """Whatever a damaged file makes Orbax or TensorStore raise becomes one line that names the checkpoint."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot restore {where}: {_one_line(error)}") from error


def _newest_state(workdir: Path) -> Path:
    checkpoints = (workdir / "checkpoints").absolute()
    steps = _steps(checkpoints)
    if not steps:
        raise InputError(f"run folder {workdir} holds no complete checkpoint yet")
    return checkpoints / str(steps[0]) / "state"


def _steps(folder: Path) -> list[int]:
    """The complete checkpoints, newest first: Orbax writes one under another name and renames it."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(x) for x in names if x.isdecimal() and x == str(int(x))), reverse=True)


def _array_digests(tree: Any) -> dict[str, str]:
    return {
        _path(path): fingerprints.of_array(leaf) for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _saved_digests(folder: Path) -> dict[str, str]:
    with _restoring(folder):
        progress: Any = ocp.JsonCheckpointHandler().restore(epath.Path(folder / "progress"))
        _check_progress(str(folder), int(folder.name), progress)
        return progress["arrays"]


def _check_progress(where: str, step: int, progress: Any) -> None:
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


def _compare_digests(where: str, saved: dict[str, str], found: dict[str, str]) -> None:
    for path in sorted(found):
        if saved.get(path) != found[path]:
            raise InputError(f"cannot restore {where}: {path} is not what was saved")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {_path(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}


def _dtypes(tree: Any) -> dict[str, str]:
    return {_path(path): str(leaf.dtype) for path, leaf in jax.tree.leaves_with_path(tree)}


def _check_chunks(where: str, metadata: Any) -> None:
    """A chunk that claims to be larger than its array would be allocated before anything is read."""
    for path, leaf in jax.tree.leaves_with_path(metadata):
        chunk = getattr(getattr(leaf, "storage", None), "chunk_shape", None)
        if chunk and math.prod(chunk) > max(math.prod(leaf.shape), 1):
            raise InputError(
                f"cannot restore {where}: {_path(path)} is stored in chunks of {chunk}"
            )


def _compare(where: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for path in sorted(expected.keys() | found.keys()):
        if found.get(path) != expected.get(path):
            kind = "dtype" if isinstance(expected.get(path), str) else "shape"
            raise InputError(
                f"cannot restore {where}: {path} has {kind} {found.get(path)} in the checkpoint, "
                f"the model's is {expected.get(path)}"
            )


def _path(path: tuple) -> str:
    # Orbax's metadata names list entries and integer keys as strings.
    return ".".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)


def _one_line(error: BaseException) -> str:
    text = str(error).partition(" [tensorstore_spec")[0]
    text = " ".join(text.split()) or type(error).__name__
    # TensorStore names several inner files before it comes to the reason.
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(code) in text:
            return os.strerror(code)
    return text if len(text) <= 300 else f"{text[:140]} ... {text[-150:]}"
