"""The faults: moments at which a run gets a signal, and damage to its files."""

import itertools
import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

MOMENTS = (
    "at any time",
    "after a step",
    "while saving",
    "at an epoch's end",
    "in the final evaluation",
)
POLL_SECONDS = 0.01
# Lines of train.log: the run has started and found its checkpoint; it has reached the final evaluation.
STARTED = "batch lengths, cached in"
EVALUATING = "of training waited for input"


def wait_for(
    moment: str,
    process: subprocess.Popen,
    run: Path,
    *,
    undisturbed: Path,
    seconds: float,
    limit: float,
    rng: random.Random,
) -> bool:
    """Waits for the moment. Returns False if the run is past it or done before.

    The moment is drawn from the steps that are left, once the run has started and found its checkpoint.

    Args:
      moment: one of MOMENTS.
      process: the run.
      run: its folder.
      undisturbed: folder of the same run, finished.
      seconds: duration of the undisturbed run.
      limit: seconds to wait at most.
      rng: draws within the moment.
    """
    begun, starts, evaluations = time.monotonic(), _starts(run), _evaluations(run)
    stale = _half_written(run)
    wait = rng.uniform(0, seconds) if moment == "at any time" else limit

    def is_running() -> bool:
        return process.poll() is None and not (run / "result.json").exists()

    def until(came: Callable[[], bool]) -> bool:
        while is_running() and time.monotonic() - begun < limit:
            if time.monotonic() - begun >= wait or came():
                return True
            time.sleep(POLL_SECONDS)
        return False

    if not until(lambda: _starts(run) > starts):
        return False
    done = len(_lines(run))  # the run has cut it back to the checkpoint
    left = _lines(undisturbed)[done:]
    ends = [i for i, line in enumerate(left, 1) if line["split"] == "validation"]
    delay = 0.0
    came: Callable[[], bool] = lambda: _evaluations(run) > evaluations  # noqa: E731
    if moment == "in the final evaluation":
        # From its start on, or between writing the predictions and the result.
        if rng.random() < 0.5:
            before = _changed(run / "predictions.jsonl")
            came = lambda: _changed(run / "predictions.jsonl") != before  # noqa: E731
        else:
            evaluation = _age_between(undisturbed / "metrics.jsonl", undisturbed / "result.json")
            delay = rng.uniform(0, evaluation / 2)
    elif moment == "while saving":
        # During one of the next saves: a checkpoint has a temporary name first.
        if not ends:
            return False
        count, delay = rng.randint(1, min(3, len(ends))), rng.choice((0.0, rng.uniform(0, 0.03)))
        seen: set[str] = set()

        def came() -> bool:
            now = _half_written(run)
            stale.intersection_update(now)
            seen.update(now - stale)
            return len(seen) >= count and bool(now - stale)
    elif moment == "at an epoch's end":
        if not ends:
            return False
        target, delay = done + rng.choice(ends), rng.uniform(0, 0.15)
        came = lambda: len(_lines(run)) >= target  # noqa: E731
    elif left:
        target = done + rng.randint(1, len(left))
        delay = rng.uniform(0, 0.1) if moment == "after a step" else 0.0
        came = lambda: len(_lines(run)) >= target  # noqa: E731
    elif moment == "after a step":
        return False
    if not until(came):
        return False
    time.sleep(delay)
    return is_running()


def _starts(run: Path) -> int:
    """How often the run has started and found its checkpoint, by its log."""
    return _log(run).count(STARTED)


def _evaluations(run: Path) -> int:
    """How often the run has reached the final evaluation, by its log."""
    return _log(run).count(EVALUATING)


def _log(run: Path) -> str:
    file = run / "train.log"
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _half_written(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").glob("*.orbax-checkpoint-tmp*")}


def _changed(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _lines(run: Path) -> list[dict]:
    """The complete lines of metrics.jsonl."""
    try:
        text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    except OSError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _age_between(first: Path, last: Path) -> float:
    return last.stat().st_mtime - first.stat().st_mtime


# --- damage -----------------------------------------------------------------------------------


def truncate(path: Path, rng: random.Random) -> None:
    """Cuts off the end of the file."""
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))] if data else b"")


def flip(path: Path, rng: random.Random) -> None:
    """Flips one bit."""
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def delete(path: Path, rng: random.Random) -> None:
    """Removes the file."""
    path.unlink()


def empty(path: Path, rng: random.Random) -> None:
    """Empties the file."""
    path.write_bytes(b"")


DAMAGE = {function.__name__: function for function in (truncate, flip, delete, empty)}


def damages(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Plans `count` corruptions: (kind, where) with where "the newest", "every one" or "one of all"."""
    places = itertools.cycle(("the newest", "the newest", "one of all", "the newest", "every one"))
    return [(kind, next(places)) for kind, _ in zip(itertools.cycle(DAMAGE), range(count))]  # noqa: B905


def damage(run: Path, kind: str, where: str, rng: random.Random) -> list[Path]:
    """Damages one file in the newest, in any, or in every checkpoint; returns the files' paths."""
    folders = sorted(
        (path for path in (run / "checkpoints").iterdir() if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )
    chosen = {
        "the newest": folders[-1:],
        "one of all": [rng.choice(folders)],
        "every one": folders,
    }[where]
    files = []
    for folder in chosen:
        inside = sorted(path for path in folder.rglob("*") if path.is_file())
        file = rng.choice(inside)
        DAMAGE[kind](file, rng)
        files.append(file.relative_to(run))
    return files
