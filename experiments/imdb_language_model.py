r"""A language model of all of IMDB's reviews but test, for classifiers to start from (`config.init_from`).

Command:

    ./launch.sh --config=experiments/imdb_language_model.py

On one NVIDIA H200 (2026-11-26), six epochs of 1,364 steps took 46.5 s with products in bfloat16 and all pieces
padded to 400 words. Perplexity on 500 validation reviews: 222, 173, 155, 146, 142 and 139.9. 19,403,826 words,
7,973,168 parameters. On two shared cores of an AMD EPYC (Zen 3) a step took about 2 s: it is meant for a GPU.
"""

from ml_collections import ConfigDict

from bahdanau_jax.runs.config import default_config
from bahdanau_jax.runs.language_model_config import LanguageModelConfig


def get_config() -> ConfigDict:
    """The defaults of a language model; `bahdanau_jax/runs/language_model_config.py` lists the fields."""
    return default_config(LanguageModelConfig)
