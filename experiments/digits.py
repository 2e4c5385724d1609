r"""Strings of 3 to 12 digits reversed: a toy to look at first.

    ./launch.sh --config=experiments/digits.py [--config.data.source=sort --workdir=runs/sort]

`python -m experiments.seq2seq` is the same.
"""

from ml_collections import ConfigDict

from bahdanau_jax.runs.config import default_config
from bahdanau_jax.runs.seq2seq_config import Seq2SeqConfig


def get_config() -> ConfigDict:
    """The defaults; `bahdanau_jax/runs/seq2seq_config.py` lists the fields."""
    return default_config(Seq2SeqConfig)
