"""Digits reversed: the toy of `experiments.seq2seq`."""

from ml_collections import ConfigDict

from bahdanau_jax.runs.config import default_config
from bahdanau_jax.runs.seq2seq_config import Seq2SeqConfig


def get_config() -> ConfigDict:
    """The defaults; `bahdanau_jax/runs/seq2seq_config.py` lists the fields."""
    return default_config(Seq2SeqConfig)
