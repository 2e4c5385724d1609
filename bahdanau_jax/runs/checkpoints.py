"""Checkpoints of a run: model, optimizer, random streams, data position and what was measured so far.

A run that was killed resumes from one to the same bits. Orbax writes in the background, and a checkpoint counts
only once it is complete. Digests of everything in it are saved with it, so that later damage is found.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import grain
import orbax.checkpoint as ocp
from flax import nnx

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs import checkpoint_checks as checks
from bahdanau_jax.runs import fingerprints, multihost


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
            cleanup_tmp_directories=True,  # half-written ones of a run that was killed
        )
        try:
            self.notices = [
                f"the checkpoint of step {path.name.partition('.')[0]} was half-written when the run was "
                "stopped, and is deleted"
                for path in sorted(self._folder.glob("*.orbax-checkpoint-tmp*"))
            ]
            # Without handlers by name, Orbax has no metadata of a checkpoint before it restores it.
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
        """The steps of the complete checkpoints, newest first; their files may still be damaged."""
        return checks.complete_steps(self._folder)

    def save(
        self,
        step: int,
        state: Any,
        iterator: grain.DatasetIterator,
        measured: dict[str, Any],
        *,
        best_step: int | None = None,
    ) -> None:
        """Starts to save. Copies the arrays from the devices and returns; files are written in the background.

        Args:
          step: optimizer steps done.
          state: NNX state.
          iterator: the training batches' iterator; its position is saved.
          measured: JSON values that were measured and are in no file yet.
          best_step: step of the best checkpoint so far, which is kept besides the latest ones.

        Raises:
          InputError: this checkpoint, or the one before it, cannot be written; names the one that is kept.
        """
        self.wait()
        self._kept.best_step = best_step
        arrays = nnx.to_pure_dict(state)
        progress: dict[str, Any] = {
            "step": step,
            "batches": iterator.get_state(),
            "measured": measured,
            "arrays": checks.array_digests(arrays),
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
        """Restores the newest checkpoint that is whole. Returns None if there is no checkpoint.

        Newer ones that are damaged are renamed, with a line in `notices`.

        Args:
          state: NNX state of the shapes, dtypes and shardings to restore.
          iterator: is moved to the saved position.

        Returns:
          (step, state, measured).

        Raises:
          InputError: every checkpoint is damaged or of other shapes than `state`, or this process has
            other flags of JAX than the run. No file is changed.
        """
        damaged: dict[int, InputError] = {}
        for step in self.steps():
            arrays, progress, reason = {}, {}, None
            try:
                arrays, progress = self._restore(step, state, iterator)
            except InputError as error:
                reason = error
            if multihost.any_of(reason is not None):
                if isinstance(reason, checks.OtherFlags):
                    raise reason
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
            raise InputError(
                f"{reasons}; expected one that is whole and fits the model. Nothing was changed: another "
                "--workdir starts from step 0"
            )
        return None

    def _restore(
        self, step: int, state: Any, iterator: grain.DatasetIterator
    ) -> tuple[Any, dict[str, Any]]:
        """Arrays and progress of one checkpoint, compared with their digests. Moves the iterator."""
        where = f"{self._folder}/{step}"
        own = nnx.to_pure_dict(state)
        with checks.restoring(where):
            metadata = self._manager.item_metadata(step)["state"]
            if metadata is None:
                raise InputError(f"cannot restore {where}: its list of arrays is damaged")
            found = checks.shapes(metadata)
            abstract = checks.stored_as(own, found)
            checks.compare(where, found, checks.shapes(abstract))
            checks.compare_widths(where, metadata, own)
            checks.check_chunks(where, metadata)
            items = ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
            )
            restored = self._manager.restore(step, args=items)
            arrays, progress = restored["state"], restored["progress"]
            checks.check_progress(where, step, progress)
            checks.compare_digests(where, progress["arrays"], checks.array_digests(arrays))
            # A random key whose description is lost comes back as the integers that it is stored as.
            checks.compare(where, checks.dtypes(arrays), checks.dtypes(own))
            checks.compare_implementations(where, arrays, own)
            iterator.set_state(progress["batches"])
            return arrays, progress

    def _set_aside(self, step: int, name: str) -> None:
        aside = self._folder / name
        try:
            if aside.exists():  # from earlier damage
                shutil.rmtree(aside)
            os.rename(self._folder / str(step), aside)
        except OSError as error:
            raise InputError(f"cannot rename {self._folder}/{step}: {error.strerror}") from error

    def _cannot_save(self, error: Exception) -> InputError:
        multihost.check_peers(error)
        kept = [step for step in self.steps() if step != self._saving][:1]
        return InputError(
            f"cannot save {self._folder}/{self._saving}: {checks.short_message(error)}; "
            + (f"the checkpoint of step {kept[0]} is kept" if kept else "there is none before it")
        )

    def wait(self) -> None:
        """Waits until the last checkpoint is on disk."""
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
    """Keeps the latest checkpoints, and the best one."""

    def __init__(self, keep: int):
        self.best_step: int | None = None
        self._latest = ocp.checkpoint_managers.LatestN(keep)

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        latest = self._latest.should_preserve(checkpoints, context=context)
        return [
            new or found.step == self.best_step
            for new, found in zip(latest, checkpoints, strict=True)
        ]
