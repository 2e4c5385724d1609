"""Kills, stops and damages runs, resumes them, and compares their results with an undisturbed run.

    python -m tests.torture [--config=experiments/imdb_tiny.py] [--kills=30] [--terms=10] \\
        [--corruptions=20] [--seed=0] [--out=runs/torture] [--config.<field>=<value> ...]

--kills        Number of SIGKILLs: at any time, after a step, while saving, at the end of an epoch, in the
               final evaluation. If a run is past that moment, a new run gets the signal.
--terms        Number of SIGTERMs, at the same moments.
--corruptions  Number of damaged checkpoints: a file truncated, with a flipped bit, deleted or empty. In one
               of five cases every checkpoint is damaged, and the run must say so in one line.
--seed         Chooses the moments and the damage.
--out          A new folder for the runs and torture.json.
--config.x     Overrides the field x.

A run is resumed after each signal. When it finishes, its parameters, optimizer, rng streams, metrics.jsonl
(except times) and predictions must be bit-identical to those of the undisturbed run.

Exit codes: 0 all runs were bit-identical or, with every checkpoint damaged, refused in one line; 1 one was
not; 2 wrong flags or input.
"""

import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.safe_files import write_json
from experiments.command import command, fail, parse_flags
from experiments.config_file import ROOT, parse
from experiments.run import START_AGAIN
from tests.torture.compare import differences
from tests.torture.faults import MOMENTS, damage, damages, wait_for

MOST_STARTS = 20  # of one run without an end, or for one moment


class Torture:
    """Disturbed runs of one config in one folder.

    Attributes:
      failures: a line for each run that did not end as it should.
      counts: how often each event happened.
    """

    def __init__(self, arguments: Sequence[str], out: Path, seed: int):
        self.failures: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self._arguments, self._out, self._rng = list(arguments), out, random.Random(seed)
        self._undisturbed = out / "undisturbed"
        begun, self._seconds = time.monotonic(), 3600.0
        code, lines = self._finish(self._undisturbed)
        self._seconds = time.monotonic() - begun
        if code:
            raise InputError(f"the undisturbed run ended with {code}: {lines[-1:]}")

    def strike(self, signals: Sequence[signal.Signals]) -> None:
        """Sends each signal at its own moment. The runs are resumed after each."""
        struck = [(number, MOMENTS[i % len(MOMENTS)]) for i, number in enumerate(signals)]
        self._rng.shuffle(struck)
        folders = 0
        run = None
        for number, moment in struck:
            for _ in range(
                MOST_STARTS
            ):  # if this run is past the moment, a new one takes its place
                if run is None:
                    folders += 1
                    run = self._out / f"struck-{folders}"
                came = self._strike_once(run, number, moment)
                if (run / "result.json").exists() or not came:
                    self._compare(run)
                    run = None
                if came:
                    break
            else:
                self._fail(self._out, f"{number.name} {moment} never came in time")
        if run is not None:
            self._compare(run)

    def _strike_once(self, run: Path, number: signal.Signals, moment: str) -> bool:
        """Starts the run and sends the signal. Returns False if the run was past the moment or done before."""
        process = self._start(run)
        came = wait_for(
            moment,
            process,
            run,
            undisturbed=self._undisturbed,
            seconds=self._seconds,
            limit=self._limit(),
            rng=self._rng,
        )
        if came:
            process.send_signal(number)
        code, lines = self._end(process, run)
        if code not in ((0, -number, START_AGAIN) if came else (0,)):
            self._fail(run, f"ended with {code} after {number.name} {moment}: {lines[-3:]}")
        if came:
            self.counts[f"{number.name} {moment}"] += 1
            self.counts[f"{number.name}: exit code {code}"] += 1
        else:
            self.counts["too late, tried again"] += 1
        _say(f"{run.name}: {number.name} {moment}, {'' if came else 'too late, '}ended with {code}")
        return came

    def corrupt(self, count: int) -> None:
        """Stops a run half-way, damages copies of its checkpoints, and resumes them."""
        if not count:
            return
        half = self._out / "half-way"
        process = self._start(half)
        target = len((self._undisturbed / "metrics.jsonl").read_bytes().splitlines()) // 2
        while process.poll() is None and _line_count(half) < target:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        code, lines = self._end(process, half)
        if code != START_AGAIN:
            self._fail(half, f"ended with {code} after SIGTERM half-way: {lines[-3:]}")
            return
        for i, (kind, where) in enumerate(damages(count, self._rng), start=1):
            run = self._out / f"damaged-{i}"
            shutil.copytree(half, run)
            files = damage(run, kind, where, self._rng)
            what = f"{kind} {' and '.join(map(str, files))}"
            code, lines = self._finish(run)
            if code == 0:
                self.counts["corruption: the run went on"] += 1
                _say(f"{run.name}: {what}: went on")
                self._compare(run, f" after {what}")
            elif code == 2 and len(lines) == 1 and lines[0].startswith("error: cannot restore"):
                self.counts["corruption: refused in one line"] += 1
                _say(f"{run.name}: {what}: {lines[0][:160]}")
                if where != "every one":
                    self._fail(run, f"was refused after {what}, with an intact checkpoint left")
                shutil.rmtree(run)
            else:
                self._fail(run, f"ended with {code} after {what}: {lines[-3:]}")
            self.counts[f"corruption: {kind}"] += 1

    def _compare(self, run: Path, when: str = "") -> None:
        """Finishes the run, compares it, and removes its folder if all is well."""
        code, lines = 0, []
        for _ in range(MOST_STARTS):
            if (run / "result.json").exists():
                break
            code, lines = self._finish(run)
            if code != START_AGAIN:
                break
        if code:
            self._fail(run, f"ended with {code}{when}: {lines[-3:]}")
            return
        found = differences(run, self._undisturbed)
        self.counts["runs compared"] += 1
        if found:
            self._fail(run, f"differs from the undisturbed run{when} in {', '.join(found)}")
        else:
            _say(f"{run.name}: finished, bit-identical")
            shutil.rmtree(run)

    def _start(self, run: Path) -> subprocess.Popen:
        # Not a pipe: nobody reads it before the end, so a run that prints much would block.
        with open(self._out / "stderr", "wb") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "experiments.run", *self._arguments, f"--workdir={run}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                cwd=ROOT, env=os.environ | {"PYTHONFAULTHANDLER": "1"},
            )  # fmt: skip

    def _finish(self, run: Path) -> tuple[int, list[str]]:
        """Starts the run and leaves it alone. Returns its exit code and the lines of its stderr."""
        return self._end(self._start(run), run)

    def _end(self, process: subprocess.Popen, run: Path) -> tuple[int, list[str]]:
        """Waits for the end or for the result, since the report after the result is not compared.

        Aborts a process that takes far longer than the undisturbed run; it then prints its stack.
        """
        deadline = time.monotonic() + self._limit()
        while process.poll() is None and not (run / "result.json").exists():
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGABRT)
                break
            time.sleep(0.01)
        done = process.poll() is None and (run / "result.json").exists()
        if done:
            process.kill()
        process.wait()
        lines = (self._out / "stderr").read_text(errors="replace").splitlines()
        return 0 if done else process.returncode, lines

    def _limit(self) -> float:
        """Seconds after which a process counts as hanging, with room for other work on the machine."""
        return 5 * self._seconds + 60

    def _fail(self, run: Path, what: str) -> None:
        self.failures.append(f"{run}: {what}")
        _say(f"FAILED {run.name}: {what}")


def _line_count(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _say(line: str) -> None:
    print(line, flush=True)


@command
def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    begun = time.monotonic()
    asked, rest = parse_flags(
        argv,
        config=True,
        kills=30,
        terms=10,
        corruptions=20,
        seed=0,
        out=str(ROOT / "runs" / "torture"),
        at_least={"kills": 0, "terms": 0, "corruptions": 0},
    )
    arguments = rest[1:]
    if not any(argument.split("=")[0].lstrip("-") == "config" for argument in arguments):
        arguments = ["--config=experiments/imdb_tiny.py", *arguments]
    parse([argv[0], *arguments])
    out = Path(asked.out).expanduser().absolute()
    if out.exists():
        raise InputError(f"--out is {out}, which exists already; expected a new folder")
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"--out is {out}, which cannot be made: {error.strerror}") from error
    torture = Torture(arguments, out, asked.seed)
    torture.strike([signal.SIGKILL] * asked.kills + [signal.SIGTERM] * asked.terms)
    torture.corrupt(asked.corruptions)
    found: dict[str, Any] = {
        "arguments": list(argv[1:]),
        "seconds": time.monotonic() - begun,
        "counts": dict(sorted(torture.counts.items())),
        "failures": torture.failures,
    }
    write_json(out / "torture.json", found)
    _say(json.dumps(found, indent=2))
    if torture.failures:
        return fail(f"{len(torture.failures)} runs did not end as they should", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
