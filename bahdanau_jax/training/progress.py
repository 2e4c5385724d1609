"""How far a run has come, and how long it took: saved in every checkpoint beside the arrays."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from bahdanau_jax.data.batches import Batch
from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.console import format_seconds
from bahdanau_jax.training.step_report import StepReport, already_checked


class Clock:
    """Seconds of training without validation and saving, and how many of them wait for input."""

    def __init__(
        self,
        train_seconds: float = 0.0,
        input_seconds: float = 0.0,
        first_step_seconds: float | None = None,
        lap_seconds: float = 0.0,
        saving_seconds: float = 0.0,
    ):
        self.train_seconds, self.input_seconds = train_seconds, input_seconds
        self.first_step = first_step_seconds
        self.saving_seconds = saving_seconds
        self.carried = lap_seconds  # of a lap that a stop cut in two
        self._last = time.monotonic()

    def start(self) -> None:
        """Begins a lap, with what an earlier start left of it."""
        self._last = time.monotonic() - self.carried
        self.carried = 0.0

    def pause(self) -> None:
        """Keeps the lap so far for the next start."""
        self.carried = self.lap_so_far()

    def lap_so_far(self) -> float:
        """Seconds since the last lap or start."""
        return time.monotonic() - self._last

    def lap(self) -> float:
        """Ends a lap: seconds since the last lap or start, added to the total."""
        seconds = self.lap_so_far()
        self.train_seconds += seconds
        self.start()
        return seconds

    def waiting_for(
        self, batches: Iterator[Batch], device_is_busy: Callable[[], bool]
    ) -> Iterator[Batch]:
        """The same batches; a wait counts only where the device has run out of work."""
        while True:
            begun = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            if not device_is_busy():
                self.input_seconds += time.monotonic() - begun
            yield batch

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Measures how long a checkpoint keeps training waiting; the next lap starts after it."""
        begun = time.monotonic()
        yield
        self.saving_seconds += time.monotonic() - begun
        self.start()

    def measured(self) -> dict[str, Any]:
        """The figures for result.json."""
        return {
            "train_seconds": self.train_seconds,
            "input_seconds": self.input_seconds,
            "saving_seconds": self.saving_seconds,
            "first_step_seconds": self.first_step,
        }

    def __str__(self) -> str:
        trained = max(self.train_seconds, 1e-9)
        return (
            f"first step after {self.first_step or 0:.1f} s; {self.input_seconds / trained:.2%} of "
            f"{format_seconds(self.train_seconds)} of training waited for input, "
            f"{self.saving_seconds / trained:.2%} more for checkpoints"
        )


@dataclasses.dataclass
class Progress:
    """Goes into a checkpoint as JSON. A checkpoint may come from anywhere, so reading checks every value.

    Attributes:
      step: steps done.
      clock: how long training took.
      best: {"step", "epoch", "loss", "accuracy", "n"} of the best validation at an epoch's end.
      pending: reports of the steps since the last training figures.
      skipped_steps: steps that were skipped because they were not finite.
    """

    step: int = 0
    clock: Clock = dataclasses.field(default_factory=Clock)
    best: dict[str, Any] | None = None
    pending: list[StepReport] = dataclasses.field(default_factory=list)
    skipped_steps: int = 0

    @property
    def best_step(self) -> int | None:
        """The step of the best validation so far."""
        return self.best["step"] if self.best else None

    def compare(self, figures: dict[str, Any]) -> None:
        """Keeps a validation's figures as the best if its accuracy is above all before."""
        better = self.best is None or figures["accuracy"] > self.best["accuracy"]
        if better and math.isfinite(figures["loss"]):
            self.best = figures

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads. The reports must have been fetched and checked."""
        return {
            "clock": self.clock.measured() | {"lap_seconds": self.clock.carried},
            "best": self.best,
            "pending": [list(map(float, report.metrics)) for report in self.pending],
            "skipped_steps": self.skipped_steps,
        }

    @classmethod
    def from_json(cls, step: int, found: Any, where: str) -> "Progress":
        """Reads what `to_json` gave for the checkpoint of a step.

        Raises:
          InputError: it is something else; names the checkpoint `where` it was found.
        """
        try:
            clock, best = dict(found["clock"]), found["best"]
            pending, skipped = found["pending"], found["skipped_steps"]
            ok = all(
                _is_number(x) or (x is None and name == "first_step_seconds")
                for name, x in clock.items()
            )
            ok &= all(_is_number(x) for sums in pending for x in sums)
            ok &= all(len(sums) == 3 for sums in pending)
            ok &= type(skipped) is int and skipped >= 0
            if best is not None:
                ok &= all(_is_number(best[name]) for name in ("loss", "accuracy"))
                ok &= all(type(best[name]) is int for name in ("step", "epoch", "n"))
            if not ok:
                raise TypeError("a value of another type than was saved")
            reports = [already_checked(sums) for sums in pending]
            return cls(step, Clock(**clock), best, reports, skipped)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{where} does not fit: {type(error).__name__}: {error}") from error


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e300
