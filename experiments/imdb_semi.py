r"""With the reviews without labels too: `imdb_best.py`, trained on all with another run's soft labels.

Command, once `imdb_best.py` is done:

    ./launch.sh --config=experiments/imdb_semi.py
"""

from ml_collections import ConfigDict

from experiments import imdb_best


def get_config() -> ConfigDict:
    """Returns `imdb_best.py`'s config with a teacher; an epoch of all reviews is three of the labelled."""
    config = imdb_best.get_config()
    config.teacher = "runs/imdb_best"
    config.max_length = 500
    config.bucket_lengths = (180, 300, 500)
    # Triples and a larger table gave nothing on validation that would pay for fitting 72,461 reviews.
    config.model.ngrams = 2
    config.model.ngram_rows = 2**22
    config.model.ngram_share = 0.5
    config.epochs = 1
    return config
