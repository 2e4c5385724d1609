r"""What each ingredient of a config buys: variants of it, each with one ingredient left out or exchanged.

    python -m experiments.sweep --configs=experiments/imdb_tiny.py --ablation --seeds=0,1,2 \
        --out=runs/ablation

A variant has a name, which becomes a part of its runs' folders, and the fields of the config that it sets.
Another config's variants are one more line of VARIANTS.
"""

from typing import Any

IMDB_TINY: dict[str, dict[str, Any]] = {
    "no-dropout": {"model.dropout": 0.0, "model.head_dropout": 0.0},
    "one-layer": {"model.num_layers": 1},
    "no-schedule": {"optimizer.schedule": "constant"},
    "no-clipping": {"optimizer.clip_norm": 0.0},
}

# What imdb_best.py has beyond a BiLSTM with attention, each left out; and three things that it has not.
IMDB_BEST: dict[str, dict[str, Any]] = {
    "no-vectors": {"init_from": ""},
    "network-alone": {"model.ngrams": 0},
    "ngrams-alone": {"model.ngram_share": 1.0, "epochs": 1},
    "pairs-only": {"model.ngrams": 2},
    "hidden-64": {"model.hidden_features": 64},
    "attention-only": {"model.pooling": ("attention",)},
    "word-dropout": {"model.word_dropout": 0.1},
    "pairs-in-the-network": {"model.bigram_rows": 65_536},
    "two-networks": {"model.members": 2},
}

# The config file's name without .py: its variants.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "imdb_tiny": IMDB_TINY,
    "imdb_best": IMDB_BEST,
}
