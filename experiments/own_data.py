r"""`imdb.py`'s network on one's own labelled texts, of two or more classes.

Commands:

    ./launch.sh --config=experiments/own_data.py --config.data.path=reviews.csv --config.data.text=body \
        --config.data.label=stars --workdir=runs/stars
    ./launch.sh --config=experiments/own_data.py --config.data.path=aclImdb/train \
        --config.data.test_path=aclImdb/test
    ./launch.sh --config=experiments/own_data.py --config.data.source=tfds \
        --config.data.name=ag_news_subset --config.data.text=description

`data.path` is a .csv, .tsv or .jsonl file in UTF-8, or a folder with a folder for each class, whose files are a
text each. `data.text` and `data.label` name columns or fields; a label is a text or an integer. With
`data.source=tfds`, `data.name` is any text classification set of TFDS (`glue/sst2`: `data.text=sentence`).

What is not given (`data.validation_path`, `data.test_path`, or splits of the TFDS set) is cut out of the
training part, a tenth each, or `data.validation_size` and `data.test_size` texts: those whose BLAKE2b hash is
smallest, in whatever order they stand; copies of one text stay together. A set of TFDS's whose test split has
no labels, as GLUE's, is tested on its validation split.

The start of a run shows each class's share; `class_weights=True` makes all classes weigh the same. What is
wrong in a file is said in one line, with the line's number, before anything is trained.
"""

from ml_collections import ConfigDict

from experiments import imdb


def get_config() -> ConfigDict:
    """Returns `imdb.py`'s config, for texts of one's own."""
    config = imdb.get_config()
    config.data.source = "files"
    config.data.validation_size = 0
    config.data.test_size = 0
    return config
