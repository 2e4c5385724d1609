r"""`imdb_best.py` with the unlabelled reviews too: in the word vectors, the n-grams' vectors and their counts.

Commands:

    ./launch.sh --config=experiments/imdb_vectors.py
    ./launch.sh --config=experiments/imdb_semi.py
"""

from ml_collections import ConfigDict

from experiments import imdb_best


def get_config() -> ConfigDict:
    """`imdb_best.py`'s config with more texts, epochs and longer n-grams."""
    config = imdb_best.get_config()
    config.data.validation = "films"
    config.init_from = "runs/imdb_vectors"
    config.epochs = 4
    config.unlabelled = True
    config.model.ngrams = 4
    config.model.ngram_rows = 2**25
    config.model.ngram_vectors = 400
    config.model.fit_blend = True
    return config
