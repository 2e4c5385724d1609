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
    """Waits until a running process is where it is to be struck; False where it was done before that.

    Args:
      moment: one of MOMENTS; within it, `rng` decides.
      process: the run's.
      run: its folder.
      undisturbed: the folder of the same run, finished.
      seconds: how long that took.
      limit: seconds after which it is no longer waited for.
    """
    planned = [(line["step"], line["split"]) for line in _lines(undisturbed)]
    ends = [step for step, split in planned if split == "validation"]
    evaluation = _age_between(undisturbed / "metrics.jsonl", undisturbed / "result.json")
    begun, done = time.monotonic(), len(_lines(run))

    if moment == "at any time":
        wait, delay = rng.uniform(0, seconds), 0.0
        came: Callable[[], bool] = lambda: time.monotonic() - begun >= wait  # noqa: E731
    elif moment == "after a step":
        target, delay = rng.randint(min(done + 1, len(planned)), len(planned)), rng.uniform(0, 0.1)
        came = lambda: len(_lines(run)) >= target  # noqa: E731
    elif moment == "while saving":
        # Any of the next three saves, at any time in it: each lies first under a name of its own.
        count, delay = rng.randint(1, 3), rng.choice((0.0, rng.uniform(0, 0.03)))
        seen: set[str] = set()

        def came() -> bool:
            now = {path.name for path in (run / "checkpoints").glob("*.orbax-checkpoint-tmp*")}
            seen.update(now)
            return len(seen) >= count and bool(now)
    elif moment == "at an epoch's end":
        left = [step for step in ends if step > max([x["step"] for x in _lines(run)], default=0)]
        target, delay = rng.choice(left or ends), rng.uniform(0, 0.15)
        came = lambda: any(x["step"] >= target for x in _lines(run))  # noqa: E731
    else:
        before, delay = _evaluations(run), rng.uniform(0, evaluation)
        came = lambda: _evaluations(run) > before  # noqa: E731

    def is_running() -> bool:
        return process.poll() is None and not (run / "result.json").exists()

    while is_running() and time.monotonic() - begun < limit:
        if came():
            time.sleep(delay)
            return is_running()
        time.sleep(POLL_SECONDS)
    return False


def _evaluations(run: Path) -> int:
    """How often a start of the run came to the final evaluation, by its log."""
    file = run / "train.log"
    return file.read_text().count("of training waiting for input") if file.exists() else 0


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
