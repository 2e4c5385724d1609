r"""Makes the report of a finished run, or of several on the same data side by side.

    python -m experiments.report --workdir=runs/imdb
    python -m experiments.report --workdir=runs/imdb,runs/imdb_unmasked

--workdir   The runs' folders, with commas between them.
--output    The HTML file; default: report.html in the run's folder, for several compared.html in the first.
--baseline  The folder of `python -m experiments.baseline`; default: the folder baseline beside the first run's.

A run makes its report at its end; this makes it again, for example once there is a baseline. Of a run from
before there were reports the data set is looked for and some of its test reviews are kept in the folder.
Each run's temperature is fitted on its validation reviews and kept in its folder, for predictions.

Ends with 0 when done, 2 when something asked for is not right, 66 when the data of an older run is not found.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from bahdanau_jax import environment
from bahdanau_jax.errors import InputError
from bahdanau_jax.kept_reviews import write_reviews
from bahdanau_jax.predictions import read_predictions
from bahdanau_jax.report import make_report
from bahdanau_jax.workdir import read_json
from experiments.command import command

MOST_RUNS = 5  # as many colours as the figures have


def keep_reviews_of_an_older_run(workdir: Path) -> None:
    """Writes reviews.jsonl from the run's data set where the run itself did not.

    Raises:
      InputError: the folder's config names no data set, or the data set is another one by now.
      DataNotFound: the data set is neither prepared nor reachable.
    """
    if (workdir / "reviews.jsonl").exists() or not (workdir / "result.json").exists():
        return
    from bahdanau_jax.train import read_dataset

    file = workdir / "config.json"
    try:
        config = ConfigDict(read_json(file))
        test = read_dataset(config.data, config.seed).read_test()
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file} names no data set: {error}") from error
    predictions = read_predictions(workdir)
    if predictions.ids != list(test.ids):
        raise InputError(f"{workdir} was tested on other reviews than {config.data.name} now has")
    write_reviews(workdir, test, predictions.probabilities)


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked = flags.FlagValues()
    flags.DEFINE_list("workdir", None, "", flag_values=asked)
    for flag in ("output", "baseline"):
        flags.DEFINE_string(flag, None, "", flag_values=asked)
    rest = asked(list(argv))[1:]
    if rest:
        raise flags.Error(f"unexpected argument {rest[0]!r}; expected --workdir")
    if not asked.workdir or not all(asked.workdir):
        raise flags.Error("--workdir is missing; expected a run's folder, or several: a,b")
    if len(asked.workdir) > MOST_RUNS:
        found = len(asked.workdir)
        raise flags.Error(f"--workdir names {found} runs; expected at most {MOST_RUNS}")
    flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own and refuses unparsed ones
    environment.use_compilation_cache()
    folders = [Path(workdir).expanduser() for workdir in asked.workdir]
    for folder in folders:
        keep_reviews_of_an_older_run(folder)
    print(make_report(*folders, output=asked.output, baseline=asked.baseline))


if __name__ == "__main__":
    sys.exit(main())
