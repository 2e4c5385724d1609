"""Runs configs x seeds, each in a process of its own, and leaves one table of them all.

    python -m experiments.sweep --configs=experiments/imdb.py,experiments/imdb_unmasked.py --seeds=0,1,2 \\
        [--ablation] [--baseline=runs/baseline] [--out=runs/sweep] [--config.<field>=<value> ...]

--configs   Config files, as for a run.
--seeds     Their seeds; all configs with the first seed run before any with the second.
--ablation  Each config also with each of its variants in experiments/ablation.py.
--baseline  The finished folder of a run or of experiments.baseline, which every run is compared with.
--out       Holds sweep.csv, sweep.md and the runs' folders, <config>[-<variant>]-seed<seed>.
--config.x  Overrides the field x in all runs; a variant's own fields stand.

Everything is checked before the first run. The same command goes on where it was stopped: a finished run is not
run again, a failed one is tried again. The tables are written after each run. The runs have this process's
environment: on CPUs, GLIBC_TUNABLES=glibc.malloc.hugetlb=1 gives them the memory pages that launch.sh does.

Ends with 0 when all runs are finished, 1 when some failed (the tables say why), 2 when something asked for is
not right, 130 when interrupted.
"""

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from bahdanau_jax.errors import InputError
from bahdanau_jax.workdir import open_workdir, validate_config
from experiments import ablation, run
from experiments.command import asks_for_help, fail, one_line
from experiments.sweep_table import Finished, Row, make_row, read_finished, write_tables


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of the sweep."""

    config: str  # the file's name without .py
    variant: str  # "" for the config as it is
    seed: int
    arguments: list[str]  # of experiments.run
    workdir: Path
    settings: ConfigDict


def plan(
    configs: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
    *,
    out: Path,
    with_variants: bool = False,
) -> list[Planned]:
    """All runs, in their order; nothing is written.

    Args:
      configs: config files.
      seeds: their seeds.
      overrides: "--config.x=y" arguments for all runs.
      out: where the runs' folders are.
      with_variants: each config also with its variants in `ablation.VARIANTS`.

    Raises:
      flags.Error, InputError: in one line, for what is not right with any of the runs.
    """
    names = [Path(config).stem for config in configs]
    for what, given in (("config", names), ("seed", seeds)):
        if not given:
            raise InputError(f"--{what}s is empty; expected at least one {what}")
        twice = [x for i, x in enumerate(given) if x in given[:i]]
        if twice:
            raise InputError(f"--{what}s names {twice[0]} twice; expected each {what} once")
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
                    settings, workdir = run.parse(["run", *arguments])
                    validate_config(settings)
                except (flags.Error, InputError) as error:
                    if not variant:
                        raise
                    raise InputError(f"variant {variant} of {name}: {error}") from error
                runs.append(Planned(name, variant, seed, arguments, workdir, settings))
    return runs


def _variants_of(name: str) -> dict[str, dict]:
    variants = ablation.VARIANTS.get(name)
    if variants is None:
        raise InputError(
            f"--ablation: experiments/ablation.py has no variants of {name}; it has those of "
            + ", ".join(ablation.VARIANTS)
        )
    for variant in variants:
        if not re.fullmatch(r"[\w.]+(-[\w.]+)*", variant):
            raise InputError(
                f"experiments/ablation.py: variant {variant!r} of {name} is to name folders; "
                "expected letters, digits and - between them"
            )
    return variants


def execute(arguments: Sequence[str]) -> str | None:
    """Runs experiments.run in a process of its own; why it failed, in one line, or None."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "experiments.run", *arguments],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", check=False,
        env=os.environ | {"PYTHONPATH": str(run.ROOT)},
    )  # fmt: skip
    sys.stderr.write(done.stderr)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    return (told or lines or [f"exit code {done.returncode}"])[-1]


def sweep(runs: Sequence[Planned], out: Path, *, baseline: Path | None, about: str) -> list[Row]:
    """Runs what is not finished, and writes the tables after each run; returns the table's rows.

    Args:
      runs: from `plan`.
      out: where the tables go.
      baseline: a finished folder, or None.
      about: what is said above the Markdown table.

    Raises:
      InputError: the baseline is none, or a run's folder holds another config's; nothing was run.
    """
    compared = read_finished(baseline) if baseline else None
    for planned in runs:
        with open_workdir(planned.workdir, planned.settings):
            pass
    outcomes: dict[tuple[str, str], dict[int, Finished | str]] = {}
    for planned in runs:
        found = outcomes.setdefault((planned.config, planned.variant), {})
        found[planned.seed] = (
            _outcome(planned.workdir) if _is_finished(planned) else "not finished yet"
        )

    def write() -> list[Row]:
        rows = [
            make_row(name, variant, found, compared, outcomes[name, ""] if variant else None)
            for (name, variant), found in outcomes.items()
        ]
        if baseline is not None:
            assert compared is not None
            rows.insert(0, make_row(f"baseline: {baseline.resolve().name}", "", {0: compared}))
        write_tables(out, rows, about=about)
        return rows

    for i, planned in enumerate(runs, start=1):
        if _is_finished(planned):
            continue
        print(f"run {i} of {len(runs)}: {planned.workdir}", flush=True)
        failure = execute(planned.arguments)
        outcomes[planned.config, planned.variant][planned.seed] = (
            f"failed: {failure}" if failure else _outcome(planned.workdir)
        )
        write()
    return write()


def _is_finished(planned: Planned) -> bool:
    return (planned.workdir / "result.json").exists()


def _outcome(workdir: Path) -> Finished | str:
    """A finished run, or why it cannot be read."""
    try:
        return read_finished(workdir)
    except InputError as error:
        return f"failed: {error}"


def _seeds(values: Sequence[str]) -> list[int]:
    try:
        return [int(value) for value in values]
    except ValueError as error:
        raise InputError(f"--seeds is {','.join(values)}; expected whole numbers") from error


def _check_overrides(arguments: Sequence[str]) -> None:
    """Refuses what is about the config as a whole, or the seed: other flags say these."""
    for argument in arguments:
        for name, instead in (("config", "configs"), ("config.seed", "seeds")):
            if re.match(rf"--?{re.escape(name)}(=|$)", argument):
                raise InputError(f"--{name} is one run's; expected --{instead}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if asks_for_help(argv):
        print(__doc__)
        return 0
    asked = flags.FlagValues()
    flags.DEFINE_list("configs", [run.DEFAULT_CONFIG], "", flag_values=asked)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "", flag_values=asked)
    flags.DEFINE_boolean("ablation", False, "", flag_values=asked)
    flags.DEFINE_string("baseline", None, "", flag_values=asked)
    flags.DEFINE_string("out", str(run.ROOT / "runs" / "sweep"), "", flag_values=asked)
    asked.set_gnu_getopt(True)  # ours may stand behind the value of a --config.x VALUE
    try:
        rest = asked(argv, known_only=True)
        _check_overrides(rest[1:])
        run.refuse_other_flags(rest, ["configs", "seeds", "ablation", "baseline", "out"])
        for flag in ("out", "baseline"):
            if asked[flag].value == "":
                raise flags.Error(f"--{flag} is empty; expected a folder")
        out = Path(asked.out).expanduser()
        baseline = Path(asked.baseline).expanduser() if asked.baseline else None
        runs = plan(
            asked.configs, _seeds(asked.seeds), rest[1:], out=out, with_variants=asked.ablation
        )
        about = f"`python -m experiments.sweep {shlex.join(argv[1:])}`"
        rows = sweep(runs, out, baseline=baseline, about=about)
    except (flags.Error, InputError) as error:
        return fail(one_line(error))
    except KeyboardInterrupt:
        return fail("interrupted; the same command goes on from here", 130)
    print(f"\n{(out / 'sweep.md').read_text(encoding='utf-8')}\nwritten: {out}/sweep.md, sweep.csv")
    finished = sum(row.seeds for row in rows) - (baseline is not None)
    if finished < len(runs):
        return fail(f"{len(runs) - finished} of {len(runs)} runs failed", 1)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run must not outlive its sweep
    sys.exit(main())
