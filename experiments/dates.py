"""Dates in 41 languages to ISO form."""

from ml_collections import ConfigDict

from experiments import digits


def get_config() -> ConfigDict:
    """`digits.py`'s config on dates, one in each line."""
    config = digits.get_config()
    config.data.source = "dates"
    config.data.shortest = config.data.longest = 1
    config.batch_size = 256
    config.steps = 1_200
    return config
