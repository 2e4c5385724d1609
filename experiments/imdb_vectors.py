r"""Word vectors of IMDB's reviews, with and without labels, for classifiers to start from (`config.init_from`).

Command:

    ./launch.sh --config=experiments/imdb_vectors.py

Half of a vector is skip-gram, half tells in which reviews a word stands. 10,028 reviews, whole films, are left
out. So runs that choose settings by films can start from the same vectors as the final ones. A logistic
regression on the mean vector of a review classifies 0.8804 of those left out.

64,836 reviews, 17,308,856 words, 7,680,000 parameters, 1.92 GB peak memory. 8 min 39 s on one core of an AMD
EPYC (Zen 4), 2026-11-27, and 19 min 24 s on one of an Intel Xeon (Cascade Lake), 2026-11-28, both beside other
work.
"""

from ml_collections import ConfigDict

from bahdanau_jax.runs.config import default_config
from bahdanau_jax.runs.word_vectors_config import WordVectorsConfig


def get_config() -> ConfigDict:
    """The defaults of word vectors; `bahdanau_jax/runs/config.py` lists the fields."""
    config = default_config(WordVectorsConfig)
    config.data.validation, config.data.validation_size = "films", 10_000
    config.unlabelled = True
    config.vocab_size = 30_000
    config.tokenizer.name = "marks"
    config.model.embedding_features, config.model.topic_features = 256, 128
    config.epochs = 8
    return config
