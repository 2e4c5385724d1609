r"""Writes the report of a finished run, or of several runs on the same data side by side.

    python -m experiments.report --workdir=runs/imdb
    python -m experiments.report --workdir=runs/imdb,runs/imdb_unmasked

--workdir   The runs' folders, separated by commas.
--output    The HTML file. Default: report.html in the run's folder; for several runs, compared.html in the
            first folder.
--baseline  The folder of `python -m experiments.baseline`. Default: `baseline` beside the first run's folder.

Each run writes its report when it ends. Use this command to write it again, for example after a baseline. A
run from before there were reports kept no texts: the command reads its data set and keeps some test reviews
in the folder. It also fits each run's temperature on validation and keeps it in the folder, for predictions.

Exit code: 0 when done, 2 when something asked for is wrong, 66 when the data of an older run is not found.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from bahdanau_jax.errors import InputError
from bahdanau_jax.report.report import make_report
from bahdanau_jax.runs import environment
from bahdanau_jax.runs.predictions import read_predictions, write_reviews
from experiments.command import command, parse_flags

MOST_RUNS = 5  # the figures have five colours


def keep_reviews_of_an_older_run(workdir: Path) -> None:
    """Writes reviews.jsonl from the run's data set, unless the run did.

    Raises:
      InputError: the folder is of no run, or its data set has changed.
      DataNotFound: the data set is neither prepared nor reachable.
    """
    if (workdir / "reviews.jsonl").exists() or not (workdir / "result.json").exists():
        return
    from bahdanau_jax.data.load import load_dataset
    from bahdanau_jax.evaluation.predictor import read_config

    config = read_config(workdir)
    dataset = load_dataset(config.data.model_dump(), seed=config.seed)
    test = dataset.read_test()
    predictions = read_predictions(workdir)
    if predictions.ids != list(test.ids):
        raise InputError(f"{workdir} was tested on other reviews than {dataset.name} now has")
    write_reviews(workdir, test, predictions.probabilities)


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, _ = parse_flags(argv, workdir=[], output=None, baseline=None)
    if not asked.workdir or not all(asked.workdir):
        raise flags.Error("--workdir is missing; expected a run's folder, or several: a,b")
    if len(asked.workdir) > MOST_RUNS:
        found = len(asked.workdir)
        raise flags.Error(f"--workdir names {found} runs; expected at most {MOST_RUNS}")
    environment.use_compilation_cache()
    folders = [Path(workdir).expanduser() for workdir in asked.workdir]
    for folder in folders:
        keep_reviews_of_an_older_run(folder)
    print(make_report(*folders, output=asked.output, baseline=asked.baseline))


if __name__ == "__main__":
    sys.exit(main())
