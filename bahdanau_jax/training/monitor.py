"""Looks at what the training steps report: writes their figures, skips or stops at non-finite steps.

The step itself decides on the device whether it is finite, so a bad one never reaches the parameters. The host
fetches reports only when figures are due, while the device computes the next step.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from bahdanau_jax.data.batches import Batch
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.metrics import add_up, mean_of
from bahdanau_jax.runs.safe_files import write_json
from bahdanau_jax.training.inputs import Tokenized
from bahdanau_jax.training.progress import Progress
from bahdanau_jax.training.session import Session
from bahdanau_jax.training.state import Setup
from bahdanau_jax.training.step_report import StepReport, already_checked, part_names


class NotFinite(InputError):
    """The run met more non-finite steps than `config.max_skipped_steps`."""


class Monitor:
    """Follows a run from step to step.

    `add` fetches due figures when the next step is on the device. If a checkpoint follows, `after` writes
    them before it.

    Args:
      progress: of the run. The monitor counts skipped steps in it and keeps its clock.
    """

    def __init__(self, run: Session, setup: Setup, data: Tokenized, progress: Progress):
        self._progress, self._writer = progress, run.writer
        self._epoch_steps, self._started = setup.epoch_steps, run.started
        self._watch = Watch(
            part_names(nnx.state(setup.model, nnx.Param)),
            max_skipped=run.config.max_skipped_steps,
            progress=progress,
            review_ids=data.ids_of_step,
            workdir=run.workdir,
        )
        self._due: tuple[int, list[StepReport]] | None = (
            None  # figures to fetch, and their last step
        )
        self._newest: StepReport | None = None  # of the last step handed to the device

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; measures how long the idle device waits for them."""
        return self._progress.clock.waiting_for(batches, self._device_is_busy)

    def add(self, report: StepReport) -> None:
        """Takes the report of the step that was just handed to the device."""
        self._write_due()
        self._newest = report
        self._progress.pending.append(report)
        clock = self._progress.clock
        if clock.first_step is None:
            jax.block_until_ready(report)
            clock.first_step = time.monotonic() - self._started

    def after(self, *, log: bool, save: bool) -> None:
        """Moves the progress bar; marks figures as due (`log`), or writes them (`save`)."""
        self._writer.advance(self._progress.step)
        if log:
            self._due = self._progress.step, self._progress.pending
            self._progress.pending = []
        if save:
            self._write_due()

    def settle(self) -> None:
        """Before a checkpoint: checks the steps since the last figures, whose sums the checkpoint keeps."""
        progress = self._progress
        if progress.pending:  # stopped between two figures; the resumed run completes them
            reports = self._fetch(progress.step, progress.pending)
            progress.pending = [already_checked(report.metrics) for report in reports]
            progress.clock.pause()

    def _write_due(self) -> None:
        if self._due is None:
            return
        (step, reports), self._due = self._due, None
        sums = add_up(report.metrics for report in self._fetch(step, reports))
        rate = float(sums.count) / self._progress.clock.lap()
        epoch = -(-step // self._epoch_steps)
        self._writer.step(step, epoch=epoch, examples_per_second=rate, **mean_of(sums))

    def _fetch(self, step: int, reports: list[StepReport]) -> list[StepReport]:
        fetched = jax.device_get(reports)
        for note in self._watch.check(step, fetched):
            self._writer.note(note)
        return fetched

    def _device_is_busy(self) -> bool:
        return not all(x.is_ready() for x in jax.tree.leaves(self._newest))


class Watch:
    """Looks for non-finite steps and counts them.

    Args:
      names: of the parameter arrays, in the order of a report's norms.
      max_skipped: how many steps of a run may be skipped.
      progress: its `skipped_steps` is the count.
      review_ids: gives the ids of the reviews in the batch of a step, counted from 1.
      workdir: gets `not_finite.json`, with the reviews and norms of the step that stops the run.

    Example::

        for note in watch.check(step, fetched):
            print(note)
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        max_skipped: int,
        progress: Progress,
        review_ids: Callable[[int], Sequence[str]],
        workdir: Path,
    ):
        self._names, self._max_skipped, self._progress = names, max_skipped, progress
        self._review_ids, self._workdir = review_ids, workdir

    def check(self, last_step: int, reports: Sequence[StepReport]) -> list[str]:
        """Looks at fetched reports of consecutive steps, the last one of `last_step`.

        Returns:
          one line for each skipped step.

        Raises:
          NotFinite: more steps are non-finite than may be skipped.
        """
        notes = []
        for step, report in enumerate(reports, start=last_step - len(reports) + 1):
            if report.finite:
                continue
            self._progress.skipped_steps += 1
            skipped = self._progress.skipped_steps
            if skipped > self._max_skipped:
                raise NotFinite(self._stop(step, report))
            notes.append(
                f"warning: step {step} was skipped ({skipped} of at most {self._max_skipped}): "
                + self._what(report)
            )
        return notes

    def _what(self, report: StepReport) -> str:
        """Such as "its loss is nan, the gradients of 2 of 3 parts are not finite (bias, kernel)"."""
        found = []
        if not np.isfinite(report.loss):
            found.append(f"its loss is {report.loss}")
        for kind, norms in (
            ("gradients", report.gradient_norms),
            ("values", report.parameter_norms),
        ):
            bad = [
                name for name, norm in zip(self._names, norms, strict=True) if not np.isfinite(norm)
            ]
            if bad:
                listed = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
                found.append(
                    f"the {kind} of {len(bad)} of {len(self._names)} parts are not finite ({listed})"
                )
        return "; ".join(found)

    def _stop(self, step: int, report: StepReport) -> str:
        file = self._workdir / "not_finite.json"
        ids = list(self._review_ids(step))
        found: dict[str, Any] = {
            "step": step,
            "loss": str(report.loss),  # JSON has neither NaN nor infinity
            "reviews": ids,
            "norms": {
                name: {"parameter": str(parameter), "gradient": str(gradient)}
                for name, parameter, gradient in zip(
                    self._names, report.parameter_norms, report.gradient_norms, strict=True
                )
            },
        }
        if jax.process_index() == 0:
            write_json(file, found)
        few = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        already = f" after {self._max_skipped} skipped steps" if self._max_skipped else ""
        return (
            f"step {step} is not finite{already}: {self._what(report)}; its {len(ids)} reviews ({few}) "
            f"and the norm of each part are in {file}; expected a smaller "
            "config.optimizer.learning_rate, config.optimizer.clip_norm above 0, or more "
            f"config.max_skipped_steps than {self._max_skipped}"
        )
