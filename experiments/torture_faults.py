"""The faults of torture.py: the moments at which a run is struck, and damage to its files."""

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
    """Waits until a running process is where it is to be struck; False where it is done, or past that.

    Where that is, is drawn from what the run has left, once it has started and found its checkpoint.

    Args:
      moment: one of MOMENTS; within it, `rng` decides.
      process: the run's.
      run: its folder.
      undisturbed: the folder of the same run, finished.
      seconds: how long that took.
      limit: seconds after which it is no longer waited for.
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
    done = len(_lines(run))  # it is cut back to the checkpoint by now
    left = _lines(undisturbed)[done:]
    ends = [i for i, line in enumerate(left, 1) if line["split"] == "validation"]
    delay = 0.0
    came: Callable[[], bool] = lambda: _evaluations(run) > evaluations  # noqa: E731
    if moment == "in the final evaluation":
        # From its begin, or when the predictions stand and the result does not.
        if rng.random() < 0.5:
            before = _changed(run / "predictions.jsonl")
            came = lambda: _changed(run / "predictions.jsonl") != before  # noqa: E731
        else:
            evaluation = _age_between(undisturbed / "metrics.jsonl", undisturbed / "result.json")
            delay = rng.uniform(0, evaluation / 2)
    elif moment == "while saving":
        # Any of the next saves, at any time in it: each lies first under a name of its own.
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
    """How often the run has started and found where to go on, by its log."""
    return _log(run).count("batch lengths, kept in")


def _evaluations(run: Path) -> int:
    """How often a start of the run came to the final evaluation, by its log."""
    return _log(run).count("of training waiting for input")


def _log(run: Path) -> str:
    file = run / "train.log"
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _half_written(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").glob("*.orbax-checkpoint-tmp*")}


def _changed(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _lines(run: Path) -> list[dict]:
    """The whole lines of metrics.jsonl."""
    try:
        text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    except OSError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _age_between(first: Path, last: Path) -> float:
    return last.stat().st_mtime - first.stat().st_mtime


# --- damage -----------------------------------------------------------------------------------


def truncate(path: Path, rng: random.Random) -> None:
    """A part of the file is missing at its end."""
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))] if data else b"")


def flip(path: Path, rng: random.Random) -> None:
    """One bit is another."""
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def delete(path: Path, rng: random.Random) -> None:
    """The file is gone."""
    path.unlink()


def empty(path: Path, rng: random.Random) -> None:
    """The file is there, with nothing in it."""
    path.write_bytes(b"")


DAMAGE = {function.__name__: function for function in (truncate, flip, delete, empty)}


def damages(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """(kind, where) of so many corruptions; where is "the newest", "every one" or "one of all"."""
    places = itertools.cycle(("the newest", "the newest", "one of all", "the newest", "every one"))
    return [(kind, next(places)) for kind, _ in zip(itertools.cycle(DAMAGE), range(count))]  # noqa: B905


def damage(run: Path, kind: str, where: str, rng: random.Random) -> list[Path]:
    """Damages a file of the newest checkpoint, of any one, or one of each; returns the files' paths."""
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
