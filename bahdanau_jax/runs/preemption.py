"""SIGTERM and SIGINT: the run finishes its step, saves and ends. A second SIGINT ends it at once."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from jax.experimental import multihost_utils

T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """A signal ended the run. Nothing is lost; the same command resumes it."""


class StopSignals:
    """Inside the block, SIGTERM and SIGINT ask the loop to stop instead of ending the process.

    Outside `each_finished`'s loop a signal raises Stopped where it arrives. A second SIGINT raises
    KeyboardInterrupt, in the loop too, and a third ends the process as without a handler. In a thread other
    than the main one, which gets no signals, nothing changes.

    Example::

        with StopSignals() as stop:
            for batch in stop.each_finished(batches):
                ...  # one step
                if asked := stop.asked_after_step():
                    ...  # save
                    raise Stopped(f"stopped by {asked}")

    Args:
      processes: number of processes of the run. If there are several, JAX's preemption service handles
        SIGTERM: a signal to any process stops all of them at the same step, the next one that none has begun.
        SIGINT becomes a SIGTERM.
    """

    def __init__(self, processes: int = 1):
        self._together = processes > 1
        self.asked: str | None = None  # the signal's name
        self._questions = 0
        self._in_loop = False
        self._before: dict[signal.Signals, Any] = {}

    def each_finished(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; a first signal does not interrupt what the loop does with one."""
        self._in_loop = True
        try:
            yield from items
        finally:
            self._in_loop = False
        if self.asked and not self._together:  # it came after the last item's question
            raise Stopped(f"stopped by {self.asked}")

    def asked_after_step(self) -> str | None:
        """The signal that asks to stop after this step, or None. All processes call it every step and agree."""
        if self._together:
            # Counted from this start, not from the run's first step: until the first call JAX takes 0 as the
            # last step, so a resumed run's step numbers would miss a signal that came before them.
            self._questions += 1
            reached = multihost_utils.reached_preemption_sync_point(self._questions)
            return "SIGTERM" if reached else None
        return self.asked

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT,) if self._together else (signal.SIGTERM, signal.SIGINT)
            for number in numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGINT is under nohup
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, _: Any) -> None:
        again, self.asked = self.asked is not None, signal.Signals(number).name
        if again and number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt
        if self._together:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if not self._in_loop:
            raise Stopped(f"stopped by {self.asked}")
