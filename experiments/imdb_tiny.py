r"""`imdb.py` from end to end on made-up reviews: no data needed, under a minute.

Command:

    ./launch.sh --config=experiments/imdb_tiny.py

Test accuracy 0.990 (500 made-up reviews, seed 0) in 25 s on two cores of an AMD EPYC (Zen 5) with empty
caches, 2026-11-23.
"""

from ml_collections import ConfigDict

from experiments import imdb


def get_config() -> ConfigDict:
    """`imdb.py`'s config, shrunk."""
    config = imdb.get_config()
    config.data.source = "made_up"
    config.data.train_size = 2_000
    config.data.validation_size = 200
    config.data.test_size = 500
    config.vocab_size = 1_000
    config.max_length = 64
    config.bucket_lengths = (32, 64)
    config.model.embedding_features = 32
    config.model.hidden_features = 16
    config.model.attention_units = 16
    config.optimizer.learning_rate = 3e-3
    config.batch_size = 50
    config.checkpoint.every_steps = 20
    return config
