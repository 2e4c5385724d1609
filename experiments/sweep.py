"""Runs configs with several seeds, each run in its own process, and writes one table of all results.

    python -m experiments.sweep --configs=experiments/imdb.py,experiments/imdb_unmasked.py --seeds=0,1,2 \\
        [--ablation] [--baseline=runs/baseline] [--out=runs/sweep] [--config.<field>=<value> ...]

--configs   Config files, as for a run.
--seeds     Seeds. All configs run with the first seed before any runs with the second.
--ablation  Also run the variants of each config in experiments/ablation.py.
--baseline  Folder of a finished run or of experiments.baseline. Every run is compared with it.
--out       Folder for sweep.csv, sweep.md and the runs, <config>[-<variant>]-seed<seed>.
--config.x  Overrides the field x in all runs, except where a variant sets it.

Everything is checked before the first run. Rerun the same command to resume: finished runs are kept, failed
ones are tried again. The tables are written after each run. Runs inherit the environment. On CPUs,
set GLIBC_TUNABLES to what launch.sh prints: training is then about a tenth faster.

Exit codes: 0 all runs finished, 1 some failed (the tables say why), 2 wrong flags or input, 130 interrupted.
"""

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.training.session import check_config
from experiments import ablation, config_file
from experiments.command import INTERRUPTED, command, fail, parse_flags
from experiments.sweep_table import Finished, Row, make_row, read_finished, write_tables


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of the sweep."""

    config: str  # the file's name without .py
    variant: str  # "" for the config itself
    seed: int
    arguments: list[str]  # of experiments.run
    workdir: Path
    settings: dict[str, Any]

    @property
    def is_finished(self) -> bool:
        return (self.workdir / "result.json").exists()

    def outcome(self) -> Finished | str:
        """The finished run, or why there is none."""
        if not self.is_finished:
            return "not finished yet"
        try:
            return read_finished(self.workdir)
        except InputError as error:
            return f"failed: {error}"


def plan(
    configs: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
    *,
    out: Path,
    with_variants: bool = False,
) -> list[Planned]:
    """Plans all runs in their order. Writes nothing.

    Args:
      configs: config files.
      seeds: their seeds.
      overrides: "--config.x=y" arguments for all runs.
      out: parent of the runs' folders.
      with_variants: also plan the variants of each config in `ablation.VARIANTS`.

    Raises:
      flags.Error, InputError: something is wrong with one of the runs; one line.
    """
    names = [Path(config).stem for config in configs]
    for what, given in (("config", names), ("seed", seeds)):
        if not given:
            raise InputError(f"--{what}s is empty; expected at least one {what}")
        repeated = [x for i, x in enumerate(given) if x in given[:i]]
        if repeated:
            raise InputError(f"--{what}s names {repeated[0]} twice; expected each {what} once")
    runs = []
    for seed in seeds:
        for config, name in zip(configs, names, strict=True):
            variants = {"": {}} | (_variants_of(name) if with_variants else {})
            for variant, fields in variants.items():
                folder = out / "-".join(filter(None, (name, variant, f"seed{seed}")))
                arguments = [f"--config={config}", *overrides]
                arguments += [f"--config.{field}={value}" for field, value in fields.items()]
                arguments += [f"--config.seed={seed}", f"--workdir={folder}"]
                try:
                    parsed, workdir = config_file.parse(["run", *arguments])
                    settings = parse_config(parsed).model_dump()
                    if seed == seeds[0] and "task" not in settings:
                        check_config(parsed)
                except (flags.Error, InputError) as error:
                    if not variant:
                        raise
                    raise InputError(f"variant {variant} of {name}: {error}") from error
                runs.append(Planned(name, variant, seed, arguments, workdir, settings))
    return runs


def _variants_of(name: str) -> dict[str, dict[str, Any]]:
    variants = ablation.VARIANTS.get(name)
    if variants is None:
        raise InputError(
            f"--ablation: experiments/ablation.py has no variants of {name}; expected one of "
            + ", ".join(ablation.VARIANTS)
        )
    for variant in variants:
        if not re.fullmatch(r"[\w.]+(-[\w.]+)*", variant):
            raise InputError(
                f"experiments/ablation.py: variant {variant!r} of {name} cannot name a folder; "
                "expected letters, digits and - between them"
            )
    return variants


def execute(arguments: Sequence[str]) -> str | None:
    """Runs experiments.run in its own process. Returns why it failed, in one line, or None."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "experiments.run", *arguments],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", check=False,
        env=os.environ | {"PYTHONPATH": str(config_file.ROOT)},
    )  # fmt: skip
    sys.stderr.write(done.stderr)
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"exit code {done.returncode}"])[-1]


def sweep(runs: Sequence[Planned], out: Path, *, baseline: Path | None, about: str) -> list[Row]:
    """Runs what is not finished. Writes the tables after each run; returns their rows.

    Args:
      runs: from `plan`.
      out: folder of the tables.
      baseline: a finished folder, or None.
      about: text above the Markdown table.

    Raises:
      InputError: before the first run, if the baseline is not finished or a folder holds another config's run.
    """
    compared = read_finished(baseline) if baseline else None
    for planned in runs:
        with open_workdir(planned.workdir, planned.settings):
            pass
    outcomes: dict[tuple[str, str], dict[int, Finished | str]] = {}
    for planned in runs:
        of_variant = outcomes.setdefault((planned.config, planned.variant), {})
        of_variant[planned.seed] = planned.outcome()

    def write() -> list[Row]:
        rows = [
            make_row(name, variant, found, compared, outcomes[name, ""] if variant else None)
            for (name, variant), found in outcomes.items()
        ]
        if baseline and compared:
            rows.insert(0, make_row(f"baseline: {baseline.resolve().name}", "", {0: compared}))
        write_tables(out, rows, about=about)
        return rows

    for i, planned in enumerate(runs, start=1):
        if planned.is_finished:
            continue
        print(f"run {i} of {len(runs)}: {planned.workdir}", flush=True)
        failure = execute(planned.arguments)
        outcomes[planned.config, planned.variant][planned.seed] = (
            f"failed: {failure}" if failure else planned.outcome()
        )
        write()
    return write()


def check_overrides(arguments: Sequence[str], instead: Mapping[str, str]) -> None:
    """Refuses flags of a single run.

    Args:
      arguments: the command line.
      instead: names of such flags, and the flag that sets them here.

    Raises:
      InputError: one of them is given.
    """
    for argument in arguments:
        for name, ours in instead.items():
            if re.match(rf"--?{re.escape(name)}(=|$)", argument):
                raise InputError(f"--{name} is for a single run; expected --{ours}")


@command
def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    check_overrides(argv[1:], {"config": "configs", "config.seed": "seeds"})
    asked, overrides = parse_flags(
        argv,
        config=True,
        configs=[config_file.DEFAULT_CONFIG],
        seeds=["0", "1", "2"],
        ablation=False,
        baseline=None,
        out=str(config_file.ROOT / "runs" / "sweep"),
    )
    try:
        seeds = [int(seed) for seed in asked.seeds]
    except ValueError as error:
        raise InputError(f"--seeds is {','.join(asked.seeds)}; expected integers") from error
    out = Path(asked.out).expanduser()
    baseline = Path(asked.baseline).expanduser() if asked.baseline else None
    runs = plan(asked.configs, seeds, overrides[1:], out=out, with_variants=asked.ablation)
    about = f"`python -m experiments.sweep {shlex.join(argv[1:])}`"
    try:
        rows = sweep(runs, out, baseline=baseline, about=about)
    except KeyboardInterrupt:
        return fail("interrupted; rerun the same command to resume", INTERRUPTED)
    print(f"\n{(out / 'sweep.md').read_text(encoding='utf-8')}\nwritten: {out}/sweep.md, sweep.csv")
    finished = sum(row.seeds for row in rows) - (baseline is not None)
    if finished < len(runs):
        return fail(f"{len(runs) - finished} of {len(runs)} runs failed", 1)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run must not outlive its sweep
    sys.exit(main())
