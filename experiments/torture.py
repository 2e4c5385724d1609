"""Kills, stops and damages runs, starts them again, and compares how they end with an undisturbed one.

    python -m experiments.torture [--config=experiments/imdb_tiny.py] [--kills=30] [--terms=10] \\
        [--corruptions=20] [--seed=0] [--out=runs/torture] [--config.<field>=<value> ...]

--kills        SIGKILLs: at any time, its start too, after a step, while saving, at an epoch's end, in the
               final evaluation. Where the run is past that, the signal is sent to a new run instead.
--terms        SIGTERMs, at the same moments.
--corruptions  Truncated, flipped, deleted and empty files of checkpoints; in one of five every checkpoint
               is damaged, and the run must say so in one line.
--seed         Decides the moments and what is damaged.
--out          A folder that is not there yet; gets the runs' folders and torture.json.
--config.x     Overrides the field x.

The signals strike one run after the other: it is started again after each, and once it is done its
parameters, optimizer, rng streams, metrics.jsonl (but for times) and predictions must be those of the
undisturbed run, bit for bit. Everything happens on this machine, in processes of their own.

Ends with 0 when every run ended with the same bits or, where every checkpoint was damaged, with a clear
line; 1 when one did not; 2 when something asked for is not right.
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

from absl import flags

from bahdanau_jax.errors import InputError
from bahdanau_jax.workdir import write_json
from experiments import run as launcher
from experiments.command import asks_for_help, fail, one_line
from experiments.torture_compare import differences
from experiments.torture_faults import MOMENTS, damage, damages, wait_for

STARTS = 20  # in a row without an end, or without the moment: more is none of a run that goes on


class Torture:
    """The runs of one config under one folder, and what was found.

    Attributes:
      failures: a line for each run that did not end as it should.
      counts: how often each thing happened.
    """

    def __init__(self, arguments: Sequence[str], out: Path, seed: int):
        self.failures: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self._arguments, self._out, self._rng = list(arguments), out, random.Random(seed)
        self._undisturbed = out / "undisturbed"
        begun, self._seconds = time.monotonic(), 3600.0
        code, told = self._finish(self._undisturbed)
        self._seconds = time.monotonic() - begun
        if code:
            raise InputError(f"the undisturbed run ended with {code}: {told[-1:]}")

    def strike(self, signals: Sequence[signal.Signals]) -> None:
        """Sends the signals, each at a moment of its own, to runs that are started again after each."""
        struck = [(number, MOMENTS[i % len(MOMENTS)]) for i, number in enumerate(signals)]
        self._rng.shuffle(struck)
        folders = 0
        run = None
        for number, moment in struck:
            for _ in range(STARTS):  # what a run has behind it comes in a new one
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
        """Starts the run, sends the signal; False where the run was past the moment, or done before it."""
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
        code, told = self._end(process, run)
        if code not in ((0, -number, launcher.START_AGAIN) if came else (0,)):
            self._fail(run, f"ended with {code} after {number.name} {moment}: {told[-3:]}")
        if came:
            self.counts[f"{number.name} {moment}"] += 1
            self.counts[f"{number.name}: exit code {code}"] += 1
        else:
            self.counts["too late, tried again"] += 1
        _say(f"{run.name}: {number.name} {moment}, {'' if came else 'too late, '}ended with {code}")
        return came

    def corrupt(self, count: int) -> None:
        """Damages checkpoints of a run that was stopped half-way, and starts it again."""
        if not count:
            return
        half = self._out / "half-way"
        process = self._start(half)
        target = len((self._undisturbed / "metrics.jsonl").read_bytes().splitlines()) // 2
        while process.poll() is None and _line_count(half) < target:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        code, told = self._end(process, half)
        if code != launcher.START_AGAIN:
            self._fail(half, f"ended with {code} after SIGTERM half-way: {told[-3:]}")
            return
        for i, (kind, where) in enumerate(damages(count, self._rng), start=1):
            run = self._out / f"damaged-{i}"
            shutil.copytree(half, run)
            files = damage(run, kind, where, self._rng)
            what = f"{kind} {' and '.join(map(str, files))}"
            code, told = self._finish(run)
            if code == 0:
                self.counts["corruption: the run went on"] += 1
                _say(f"{run.name}: {what}: went on")
                self._compare(run, f" after {what}")
            elif code == 2 and len(told) == 1 and told[0].startswith("error: cannot restore"):
                self.counts["corruption: refused in one line"] += 1
                _say(f"{run.name}: {what}: {told[0][:160]}")
                if where != "every one":
                    self._fail(run, f"was refused after {what}, with a whole checkpoint beside it")
                shutil.rmtree(run)
            else:
                self._fail(run, f"ended with {code} after {what}: {told[-3:]}")
            self.counts[f"corruption: {kind}"] += 1

    def _compare(self, run: Path, when: str = "") -> None:
        """Lets the run finish, and compares it; removes its folder where all is well."""
        code, told = 0, []
        for _ in range(STARTS):
            if (run / "result.json").exists():
                break
            code, told = self._finish(run)
            if code != launcher.START_AGAIN:
                break
        if code:
            self._fail(run, f"ended with {code}{when}: {told[-3:]}")
            return
        found = differences(run, self._undisturbed)
        self.counts["runs compared"] += 1
        if found:
            self._fail(run, f"differs from the undisturbed run{when} in {', '.join(found)}")
        else:
            _say(f"{run.name}: finished, the same bits")
            shutil.rmtree(run)

    def _start(self, run: Path) -> subprocess.Popen:
        # Not a pipe, which is read only at the end: a run that says much would wait for it.
        with open(self._out / "stderr", "wb") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "experiments.run", *self._arguments, f"--workdir={run}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                cwd=launcher.ROOT, env=os.environ | {"PYTHONFAULTHANDLER": "1"},
            )  # fmt: skip

    def _finish(self, run: Path) -> tuple[int, list[str]]:
        """The exit code of a start that is left alone, and the lines that it wrote to stderr."""
        return self._end(self._start(run), run)

    def _end(self, process: subprocess.Popen, run: Path) -> tuple[int, list[str]]:
        """Waits for the end, or for the result: the report after it is not what is compared.

        A process that takes far longer than the undisturbed one is aborted and tells where it stood.
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
        told = (self._out / "stderr").read_text(errors="replace").splitlines()
        return 0 if done else process.returncode, told

    def _limit(self) -> float:
        """Seconds after which a process counts as one that hangs; other work may slow it down."""
        return 5 * self._seconds + 60

    def _fail(self, run: Path, what: str) -> None:
        self.failures.append(f"{run}: {what}")
        _say(f"FAILED {run.name}: {what}")


def _line_count(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _say(line: str) -> None:
    print(line, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if asks_for_help(argv):
        print(__doc__)
        return 0
    asked = flags.FlagValues()
    flags.DEFINE_string("config", "experiments/imdb_tiny.py", "", flag_values=asked)
    for name, default in (("kills", 30), ("terms", 10), ("corruptions", 20), ("seed", 0)):
        flags.DEFINE_integer(name, default, "", lower_bound=0, flag_values=asked)
    flags.DEFINE_string("out", str(launcher.ROOT / "runs" / "torture"), "", flag_values=asked)
    asked.set_gnu_getopt(True)
    begun = time.monotonic()
    try:
        rest = asked(argv, known_only=True)
        known = ["kills", "terms", "corruptions", "seed", "out"]
        launcher.refuse_other_flags(rest, known)
        arguments = [f"--config={asked.config}", *rest[1:]]
        launcher.parse([argv[0], *arguments])
        out = Path(asked.out).expanduser().absolute()
        if out.exists():
            raise InputError(f"--out is {out}, which is there already; expected a new folder")
        out.mkdir(parents=True)
        torture = Torture(arguments, out, asked.seed)
        torture.strike([signal.SIGKILL] * asked.kills + [signal.SIGTERM] * asked.terms)
        torture.corrupt(asked.corruptions)
    except (flags.Error, InputError, OSError) as error:
        return fail(one_line(error))
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
