r"""Word vectors of IMDB's labelled reviews alone, which `imdb_best.py` starts from; their labels are not read.

Command:

    ./launch.sh --config=experiments/imdb_vectors_labelled.py
"""

from ml_collections import ConfigDict

from experiments import imdb_vectors


def get_config() -> ConfigDict:
    """Returns `imdb_vectors.py`'s config without the reviews that have no labels, and with more epochs."""
    config = imdb_vectors.get_config()
    config.unlabelled = False
    config.epochs = 15
    return config
