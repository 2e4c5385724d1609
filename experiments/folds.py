r"""Cross-validation: trains a run for each fold of the training texts, and blends them.

    python -m experiments.folds --config=experiments/imdb_semi.py --out=runs/semi_folds \
        [--folds=5] [--config.<field>=<value> ...]
    python -m experiments.predict --workdir=runs/semi_folds/blend "A dull first hour, then pure joy."

--config    A config file, as for a run, whose data has no validation split of its own.
--out       Folder of the runs, fold0, fold1 and so on, and of their blend.
--folds     Number of runs. Each holds out another part of the training texts as its validation, and trains
            on the others. With config.data.validation=films a fold consists of whole films.
--config.x  Overrides the field x in all runs.

The blend is the mean of the runs' logits (`experiments.blend`). So all labelled texts but those of test are
learned from. They are also the blend's validation, each predicted by the run that did not train on it. (A few
may be left over, so that classes and groups fit.)

Rerun the same command to resume: finished runs are kept. Runs inherit the environment. On CPUs, set
GLIBC_TUNABLES to what launch.sh prints: training is then about a tenth faster.

docs/accuracy.md has the figures.

Exit codes: 0 done, 1 a run failed, 2 wrong flags or input, 66 data not found, 130 interrupted.
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bahdanau_jax.data.load import read_dataset
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.training.session import check_config
from experiments import blend, config_file
from experiments.command import INTERRUPTED, REQUIRED, command, fail, parse_flags
from experiments.sweep import check_overrides, execute

OURS = ("validation_size", "validation_fold")


def plan(overrides: Sequence[str], *, folds: int, out: Path) -> dict[Path, list[str]]:
    """The runs' folders, with their arguments for experiments.run. Checks all of them; writes no run.

    Raises:
      flags.Error, InputError: something is wrong with the config, the data or a folder; one line.
      DataNotFound: the data set is neither prepared nor reachable.
    """
    first = check_config(config_file.parse(["run", *overrides])[0])
    data = first.data.model_dump()
    dataset = read_dataset(data | dict(zip(OURS, (1, 0), strict=True)), seed=first.seed)
    size = -(-(len(dataset.train) + len(dataset.validation)) // folds)
    # The last fold is the first that could fail; its run would only begin after the others.
    read_dataset(data | dict(zip(OURS, (size, folds - 1), strict=True)), seed=first.seed)
    runs = {}
    for fold in range(folds):
        workdir = out / f"fold{fold}"
        ours = zip(OURS, (size, fold), strict=True)
        arguments = [*overrides, *(f"--config.data.{field}={value}" for field, value in ours)]
        parsed, _ = config_file.parse(["run", *arguments])
        with open_workdir(workdir, check_config(parsed).model_dump()):
            runs[workdir] = [*arguments, f"--workdir={workdir}"]
    return runs


@command
def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    check_overrides(argv[1:], {f"config.data.{field}": "folds" for field in OURS})
    asked, overrides = parse_flags(argv, config=True, folds=5, out=REQUIRED, at_least={"folds": 2})
    out = Path(asked.out).expanduser().resolve()
    runs = plan(overrides[1:], folds=asked.folds, out=out)
    for i, (workdir, arguments) in enumerate(runs.items(), start=1):
        if (workdir / "result.json").exists():
            continue
        print(f"run {i} of {len(runs)}: {workdir}", flush=True)
        try:
            failure = execute(arguments)
        except KeyboardInterrupt:
            return fail("interrupted; rerun the same command to resume", INTERRUPTED)
        if failure:
            return fail(f"{workdir}: {failure}", 1)
    given = ",".join(map(str, runs))
    return blend.main(["blend", f"--runs={given}", f"--workdir={out / 'blend'}"])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run must not outlive its blend
    sys.exit(main())
