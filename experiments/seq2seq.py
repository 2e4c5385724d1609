"""Sequence to sequence with Bahdanau attention: digits reversed, dates to ISO form, or pairs of your own.

python -m experiments.seq2seq [--config=experiments/digits.py] [--config.<field>=<value>] [--workdir=FOLDER]
"""

import sys
from collections.abc import Sequence

from experiments.command import command
from experiments.config_file import parse


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    from bahdanau_jax.training.seq2seq import train_seq2seq

    if not any(argument.lstrip("-").split("=")[0] == "config" for argument in argv[1:]):
        argv = [*argv, "--config=experiments/digits.py"]
    train_seq2seq(*parse(argv))


if __name__ == "__main__":
    sys.exit(main())
