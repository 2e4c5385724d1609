r"""With the reviews without labels too: `imdb_best.py`, twice as wide, on word vectors learned from all reviews.

Commands:

    ./launch.sh --config=experiments/imdb_vectors.py
    ./launch.sh --config=experiments/imdb_semi.py
"""

from ml_collections import ConfigDict

from experiments import imdb_best


def get_config() -> ConfigDict:
    """Returns `imdb_best.py`'s config with other word vectors and a wider network."""
    config = imdb_best.get_config()
    config.init_from = "runs/imdb_vectors"
    config.model.hidden_features = 256
    config.model.ngram_share = 0.5
    return config
