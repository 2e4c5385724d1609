r"""`imdb.py`'s network on your own labelled texts, of two or more classes.

Commands:

    ./launch.sh --config=experiments/own_data.py --config.data.path=reviews.csv --config.data.text=body \
        --config.data.label=stars --workdir=runs/stars
    ./launch.sh --config=experiments/own_data.py --config.data.path=aclImdb/train \
        --config.data.test_path=aclImdb/test
    ./launch.sh --config=experiments/own_data.py --config.data.source=tfds \
        --config.data.name=ag_news_subset --config.data.text=description

`data.path` is a file (CSV, TSV, JSON, JSON lines, Parquet, Arrow, fastText's format) or a folder with one
folder per class; docs/data.md shows all. `data.text` and `data.label` name columns or fields, or give their
numbers. Look at the data first with `python -m experiments.data --config=experiments/own_data.py ...`. With
`data.source=tfds`, `data.name` is any text classification set of TFDS (for `glue/sst2`:
`data.text=sentence`), with `data.source=hub` one of the Hugging Face hub.

Missing parts (`data.validation_path`, `data.test_path`, or splits of the set) are cut out of the training
part: a tenth each, or `data.validation_size` and `data.test_size` texts, each class by its share. The texts
with the smallest BLAKE2b hash are taken, so their order does not matter, and copies of a text stay together.
A set without labels in its test split, such as GLUE's, is tested on its validation split.

The run prints the share of each class. `class_weights=True` gives all classes the same weight. Errors in a
file are reported in one line, with the line number, before training starts.
"""

from ml_collections import ConfigDict

from experiments import imdb


def get_config() -> ConfigDict:
    """`imdb.py`'s config for your own texts."""
    config = imdb.get_config()
    config.data.source = "files"
    config.data.validation_size = 0
    config.data.test_size = 0
    return config
