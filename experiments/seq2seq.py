"""Sequence to sequence with Bahdanau attention: digits reversed, dates to ISO form, or pairs of your own.

    python -m experiments.seq2seq [--config=experiments/digits.py] [--config.<field>=<value>] [--workdir=FOLDER]

--config    digits.py (the default), dates.py or date_lines.py, or a file of your own. docs/seq2seq.md lists the
            fields. `--config.data.source=tsv --config.data.path=pairs.tsv` reads your own pairs: a source, a
            tab and a target on each line.
--workdir   The run's folder; default: runs/<name of the config file>. It gets the weights, result.json (exact
            match and BLEU, also by length) and alignment.png. Rerun the same command to resume.

`python -m experiments.translate` translates with a finished run.

Exit codes: 0 done, 2 wrong flags or input, 66 data not found, 75 stopped by a signal (rerun the same command to
resume; the result is bit-identical).
"""

import sys
from collections.abc import Sequence

from experiments import run
from experiments.command import asks_for_help, until_the_reader_leaves


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = list(sys.argv if argv is None else argv)
    if asks_for_help(argv):
        with until_the_reader_leaves():
            print(__doc__)
        return 0
    if not any(argument.split("=")[0].lstrip("-") == "config" for argument in argv[1:]):
        argv.append("--config=experiments/digits.py")
    return run.main(argv)


if __name__ == "__main__":
    sys.exit(main())
