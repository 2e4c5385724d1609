r"""A language model of all of IMDB's reviews but test, for classifiers to start from (`config.init_from`).

Command:

    ./launch.sh --config=experiments/imdb_language_model.py
"""

from ml_collections import ConfigDict

from bahdanau_jax.runs.config import default_config
from bahdanau_jax.runs.language_model_config import LanguageModelConfig


def get_config() -> ConfigDict:
    """The defaults of a language model; `bahdanau_jax/runs/language_model_config.py` lists the fields."""
    return default_config(LanguageModelConfig)
