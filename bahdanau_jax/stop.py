"""SIGTERM and SIGINT: the step is finished and saved before the run ends; SIGINT twice ends it at once."""

import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """A signal ended the run, which loses nothing and is to be started again."""


class StopSignals:
    """While the block lasts, SIGTERM and SIGINT are asked of the loop instead of ending the process.

    Outside of `each_finished`'s loop a signal raises Stopped where it arrives. A second SIGINT raises
    KeyboardInterrupt, in the loop too, and a third ends the process as if there were no handler. In a
    thread other than the main one, which gets no signals, nothing changes.

    Example::

        with StopSignals() as stop:
            for batch in stop.each_finished(batches):
                ...  # one step
                if stop.asked:
                    ...  # save
                    raise Stopped(f"stopped by {stop.asked}")
    """

    def __init__(self):
        self.asked: str | None = None  # the signal's name
        self._in_loop = False
        self._before: dict[signal.Signals, Any] = {}

    def each_finished(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; what the loop does with one is not interrupted by a first signal."""
        self._in_loop = True
        try:
            yield from items
        finally:
            self._in_loop = False
        if self.asked:  # after the last item's look at it
            raise Stopped(f"stopped by {self.asked}")

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
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
        if not self._in_loop:
            raise Stopped(f"stopped by {self.asked}")
