"""Writes what a run measures: metrics.jsonl, TensorBoard events, train.log, and the progress bar."""

import contextlib
import datetime
import json
import math
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.console import format_seconds, make_console
from bahdanau_jax.runs.safe_files import parse_json, write_bytes

_without_torch = "torch" not in sys.modules
if _without_torch:  # tensorboardX would import it, in 2 s, for types that are not needed here
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
try:
    from tensorboardX.proto import event_pb2, summary_pb2
    from tensorboardX.record_writer import masked_crc32c
finally:
    if _without_torch:
        del sys.modules["torch"]

# protobuf makes these while it is imported, where no type checker sees them.
Event: Any = vars(event_pb2)["Event"]
SessionLog: Any = vars(event_pb2)["SessionLog"]
Summary: Any = vars(summary_pb2)["Summary"]

PLAIN_SECONDS = 10.0  # between two progress lines on a stdout that is not a terminal


class MetricWriter:
    """Writes the figures of a run to `workdir` and shows them on `console`.

    A line of metrics.jsonl is {"step", "epoch", "split": "train", "loss", "accuracy", "examples_per_second"} for
    training figures, and {"step", "epoch", "split", "loss", "accuracy", "n", "seconds"} for an evaluation. Floats
    keep every digit. A loss that is not finite is null, because JSON has no NaN.

    On resume, lines beyond `resume_step` are removed, and so is a last line that a kill cut short: the steps
    after the checkpoint are measured again.

    Raises:
      InputError: a file cannot be read, understood or written.

    >>> with MetricWriter(workdir, total_steps=264) as recorder:             # doctest: +SKIP
    ...     recorder.step(10, epoch=1, loss=0.69, accuracy=0.5, examples_per_second=310.0)
    ...     recorder.epoch(88, epoch=1, split="validation", loss=0.4, accuracy=0.8, n=2500, seconds=9)
    """  # noqa: E501

    def __init__(
        self,
        workdir: str | Path,
        *,
        total_steps: int,
        resume_step: int = 0,
        console: Console | None = None,
    ):
        workdir = Path(workdir)
        self.console = make_console() if console is None else console
        self._total_steps = total_steps
        self._last_plain = -math.inf
        with contextlib.ExitStack() as opened:  # closes what was opened when a later one fails
            _cut_after(workdir / "metrics.jsonl", resume_step)
            self._metrics = opened.enter_context(_File(workdir / "metrics.jsonl"))
            self._log = opened.enter_context(_File(workdir / "train.log"))
            self._events = opened.enter_context(_EventFile(workdir / "tensorboard", resume_step))
            self._files = opened.pop_all()
        live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            # Batches differ in length: a short window would make the time left jump about.
            speed_estimate_period=120.0,
            refresh_per_second=4,
            expand=True,
            disable=not live,
        )
        self._task = self._progress.add_task(
            "", total=total_steps, completed=resume_step, epoch="-", figures=""
        )
        self._started = False

    def step(
        self, step: int, *, epoch: int, loss: float, accuracy: float, examples_per_second: float
    ) -> None:
        """Writes the training figures of the steps since the last call, and moves the bar."""
        loss, accuracy, rate = float(loss), float(accuracy), float(examples_per_second)
        self._write(
            step,
            {"epoch": int(epoch), "split": "train"},
            {"loss": loss, "accuracy": accuracy, "examples_per_second": rate},
            tags="train",
        )
        figures = f"loss {loss:.4f}  accuracy {accuracy:.4f}  {rate:,.0f} reviews/s"
        self.advance(step)
        self._progress.update(self._task, epoch=str(epoch), figures=figures)
        line = f"epoch {epoch}  step {step}/{self._total_steps}  {figures}"
        left = self._progress.tasks[0].time_remaining
        if left is not None and step < self._total_steps:
            line += f"  {format_seconds(left)} left"
        self.log(line)
        now = time.monotonic()
        if self._progress.disable and now - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = now
            self._print(line)

    def epoch(
        self,
        step: int,
        *,
        epoch: int,
        split: str,
        loss: float,
        accuracy: float,
        n: int,
        seconds: float,
    ) -> None:
        """Writes and prints the evaluation of `n` reviews of a split, which took `seconds`."""
        loss, accuracy, seconds = float(loss), float(accuracy), float(seconds)
        self._write(
            step,
            {"epoch": int(epoch), "split": split},
            {"loss": loss, "accuracy": accuracy},
            {"n": int(n), "seconds": seconds},
            # Figures of training steps include dropout: another curve.
            tags="train_epoch" if split == "train" else split,
        )
        self.note(
            f"epoch {epoch}  {split}  loss {loss:.4f}  accuracy {accuracy:.4f}  "
            f"{n:,} reviews in {format_seconds(seconds)}"
        )

    def advance(self, step: int) -> None:
        """Moves the bar; the first call shows it."""
        if not self._started and step < self._total_steps:
            self._progress.start()
            self._started = True
        self._progress.update(self._task, completed=int(step))

    def note(self, message: str) -> None:
        """Prints a line above the bar, and logs it."""
        if self._progress.finished:
            self._stop_bar()  # later lines belong below the full bar
        self.log(message)
        self._print(message)

    def log(self, message: str) -> None:
        """Writes to train.log only, with the time before each line."""
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        lines = [f"{now} {line}".rstrip() + "\n" for line in message.splitlines() or [""]]
        self._log.write("".join(lines).encode())

    def close(self) -> None:
        """Stops the bar and closes the files. May be called twice."""
        self._stop_bar()
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any):
        if kind is not None:
            with contextlib.suppress(InputError):  # a full disk may have stopped the run
                self.log(f"stopped by {kind.__name__}: {error}".removesuffix(": "))
        self.close()

    def _write(
        self,
        step: int,
        head: dict[str, Any],
        figures: dict[str, float],
        tail: dict[str, Any] | None = None,
        *,
        tags: str,
    ) -> None:
        record = {"step": int(step)} | head | figures | (tail or {})
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        self._metrics.write((json.dumps(finite, allow_nan=False) + "\n").encode())
        self._events.scalars(int(step), {f"{tags}/{name}": v for name, v in figures.items()})

    def _stop_bar(self) -> None:
        if self._started:
            self._progress.stop()
            self._started = False

    def _print(self, message: str) -> None:
        self.console.print(message, soft_wrap=True, markup=False, highlight=False, emoji=False)


class Silent:
    """Replaces a MetricWriter in processes that write nothing."""

    def step(self, step: int, **figures: float) -> None: ...
    def epoch(self, step: int, **figures: Any) -> None: ...
    def advance(self, step: int) -> None: ...
    def note(self, message: str) -> None: ...
    def log(self, message: str) -> None: ...


class _File:
    """A file to append to. Unbuffered, so written lines survive a kill."""

    def __init__(self, path: Path, mode: str = "ab"):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, mode, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _cannot("write", path, error) from error

    def write(self, data: bytes) -> None:
        try:
            while data:  # a nearly full disk takes a part before it refuses
                data = data[self._file.write(data) or 0 :]
        except OSError as error:
            raise _cannot("write", self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()


class _EventFile(_File):
    """TensorBoard's scalars, written at once in this thread.

    The SummaryWriter of tensorboardX writes in a thread that dies silently on a full disk and leaves training
    waiting for it; its file names repeat within a second.
    """

    def __init__(self, folder: Path, resume_step: int):
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        super().__init__(folder / name, mode="xb")
        self._event(file_version="brain.Event:2")
        # TensorBoard drops earlier files' points from this step on; on a fresh start, all of them.
        purge_step = resume_step + 1 if resume_step else 0
        self._event(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._event(step=step, summary=Summary(value=points))

    def _event(self, **fields: Any) -> None:
        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        frame = (length, _checksum(length), data, _checksum(data))
        self.write(b"".join(frame))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def _cut_after(path: Path, resume_step: int) -> None:
    """Keeps the complete lines of metrics.jsonl up to `resume_step`; on a fresh start, none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot("read", path, error) from error
    kept = []
    lines = data.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines if resume_step else [], start=1):
        try:
            step = parse_json(line)["step"]
            if not isinstance(step, int):
                raise TypeError
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise InputError(
                f"{path}: line {number} is {line[:40]!r}; expected a JSON object with a step"
            ) from error
        if step <= resume_step:
            kept.append(line + b"\n")
    wanted = b"".join(kept)
    if wanted == data:
        return
    write_bytes(path, wanted)


def _cannot(what: str, path: Path, error: OSError) -> InputError:
    return InputError(f"cannot {what} {path}: {error.strerror or error}")
