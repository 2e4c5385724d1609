r"""The best that labelled reviews alone gave here: a BiLSTM beside a linear model of n-grams (NB-SVM).

Command:

    ./launch.sh --config=experiments/imdb_best.py
"""

from ml_collections import ConfigDict

from experiments import imdb


def get_config() -> ConfigDict:
    """Returns `imdb.py`'s config with what `ablation.py` shows to pay."""
    config = imdb.get_config()
    config.vocab_size = 30_000
    config.marks = True
    config.max_length = 900
    config.bucket_lengths = (200, 360, 900)

    config.model.num_layers = 1
    config.model.pooling = ("attention", "max", "mean")
    config.model.word_dropout = 0.3
    config.model.ngrams = 3
    config.model.ngram_rows = 2**24
    config.model.ngram_share = 0.7

    config.batch_size = 128
    config.checkpoint.every_steps = 200
    return config
