"""How long a run trains, and how much of that it waits for its input."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from bahdanau_jax.batches import Batch
from bahdanau_jax.console import format_seconds


class Clock:
    """Seconds of training without validation and saving, and the share of them spent on waiting for input."""

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
        self._last = time.monotonic() - self.carried
        self.carried = 0.0

    def pause(self) -> None:
        """The lap goes on with the next start."""
        self.carried = self.lap_so_far()

    def lap_so_far(self) -> float:
        """Seconds since the last lap or start."""
        return time.monotonic() - self._last

    def lap(self) -> float:
        """Seconds since the last lap or start, added to the total."""
        seconds = self.lap_so_far()
        self.train_seconds += seconds
        self.start()
        return seconds

    def waiting_for(
        self, batches: Iterator[Batch], device_is_busy: Callable[[], bool]
    ) -> Iterator[Batch]:
        """The same batches; the time until each is there counts where the device has run out of work."""
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
        """Counts what a checkpoint keeps the training waiting; the next lap starts behind it."""
        begun = time.monotonic()
        yield
        self.saving_seconds += time.monotonic() - begun
        self.start()

    def measured(self) -> dict[str, Any]:
        return {
            "train_seconds": self.train_seconds,
            "input_seconds": self.input_seconds,
            "saving_seconds": self.saving_seconds,
            "first_step_seconds": self.first_step,
        }

    def __str__(self) -> str:
        share = self.input_seconds / max(self.train_seconds, 1e-9)
        return (
            f"first step after {self.first_step or 0:.1f} s; {share:.2%} of "
            f"{format_seconds(self.train_seconds)} of training waiting for input, "
            f"{self.saving_seconds / max(self.train_seconds, 1e-9):.2%} more for checkpoints"
        )
