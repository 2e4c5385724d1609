r"""Word vectors of IMDB's reviews, with labels and without, for classifiers to start from (`config.init_from`).

Command:

    ./launch.sh --config=experiments/imdb_vectors.py

What the vectors alone know of the labels: a logistic regression on their mean over a review is right for
0.8868 of validation. 72,461 reviews, 19,331,365 words; 3,840,000 numbers, 1.08 GB at most. 30 min 52 s
beside other work, 11 min of one core's time, on an Intel Xeon, 2026-11-25; the same bits in a second
process.
"""

from ml_collections import ConfigDict

from experiments import imdb


def get_config() -> ConfigDict:
    """Returns every setting of a run; `--config.<field>=<value>` overrides one."""
    config = ConfigDict()
    config.task = "word_vectors"  # what is learned; without this field, a classifier
    config.seed = 0
    config.data = imdb.get_config().data
    config.unlabelled = True  # whether the texts without labels are read too

    config.vocab_size = 30_000
    config.marks = True

    config.model = ConfigDict()
    config.model.embedding_features = 128
    config.model.window = 8  # words to either side, at most
    config.model.negatives = 5  # drawn words that each neighbour is told from
    config.model.subsample = 1e-4  # words more frequent than this are skipped now and then

    config.epochs = 8
    return config
