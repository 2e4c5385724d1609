r"""Word vectors of IMDB's reviews, with and without labels, for classifiers to start from (`config.init_from`).

Command:

    ./launch.sh --config=experiments/imdb_vectors.py

A logistic regression on the mean vector of a review classifies 0.8868 of validation. 72,461 reviews,
19,331,365 words, 3,840,000 parameters, 1.08 GB peak memory. 30 min 52 s beside other work (11 min of one
core) on an Intel Xeon, 2026-11-25. A second process gave the same bits.
"""

from ml_collections import ConfigDict

from bahdanau_jax.runs.config import WordVectorsConfig, default_config


def get_config() -> ConfigDict:
    """The defaults of word vectors; `bahdanau_jax/runs/config.py` lists the fields."""
    config = default_config(WordVectorsConfig)
    config.data.validation = "films"
    config.unlabelled = True
    config.vocab_size = 30_000
    config.tokenizer.name = "marks"
    config.model.embedding_features = 128
    config.epochs = 8
    return config
