r"""A language model of IMDB's reviews, without their labels, for classifiers to start from.

Command:

    ./launch.sh --config=experiments/imdb_language_model.py

The mean loss over 81,408 predictions in validation's reviews, among all 30,000 words, is 5.798 nats
(perplexity 330); for 13.7% of them the likeliest word is the right one. That is a poor language model: 1,895
steps in one pass over 19.4 million words, and a classifier that starts from it does not gain
(docs/accuracy.md). 4,166,192 parameters, 1.85 GB resident at most.

36 min 36 s in all on one core of an Intel Xeon (AVX-512) which other work shared and at times stopped;
2026-11-24 and -25. The run was started before `config.marks` existed, with the same rule by hand: of the
72,461 texts one has other words now, and the vocabulary is the same.
"""

from ml_collections import ConfigDict

from experiments import imdb


def get_config() -> ConfigDict:
    """Returns every setting of a run; `--config.<field>=<value>` overrides one."""
    base = imdb.get_config()
    config = ConfigDict()
    config.task = "language_model"  # what is trained; without this field, a classifier
    config.seed = 0
    config.data = base.data

    config.vocab_size = 30_000
    config.marks = True
    config.max_length = 160  # all texts are one stream of words, cut into rows of this length
    config.bucket_lengths = (160,)

    config.model = ConfigDict()
    config.model.embedding_features = 128
    config.model.hidden_features = 128  # in each direction
    config.model.dropout = 0.0
    config.model.candidates = 256  # words drawn a step, which each word is weighed against
    config.model.dtype = "float32"
    config.model.implementation = "auto"
    config.model.chunk_size = 0

    config.optimizer = base.optimizer
    config.optimizer.learning_rate = 3e-3

    config.batch_size = 64
    config.epochs = 1

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 200
    config.checkpoint.keep = 2
    config.log_every_steps = 20
    return config
