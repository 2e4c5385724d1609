r"""`imdb.py` with the notebook's unmasked attention: padding takes part in the softmax.

Measures what masking buys. The LSTMs skip the padding here too; only the attention sees it, and
every batch is padded to 500 as the notebook's are, since here the result depends on the padding.

Command:

    ./launch.sh --config=experiments/imdb_unmasked.py

RESULT
"""

from ml_collections import ConfigDict

from experiments import imdb


def get_config() -> ConfigDict:
    """Returns `imdb.py`'s config without the attention's mask."""
    config = imdb.get_config()
    config.model.mask_attention = False
    config.bucket_lengths = (config.max_length,)
    return config
