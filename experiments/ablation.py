r"""Variants for `experiments.sweep --ablation`: each leaves out or changes one ingredient of a config.

    python -m experiments.sweep --configs=experiments/imdb_tiny.py --ablation --seeds=0,1,2 \
        --out=runs/ablation

A variant is a name, which becomes part of its runs' folders, and the config fields it sets. To add variants
of another config, add a line to VARIANTS.
"""

from typing import Any

IMDB_TINY: dict[str, dict[str, Any]] = {
    "no-dropout": {"model.dropout": 0.0, "model.head_dropout": 0.0},
    "one-layer": {"model.num_layers": 1},
    "no-schedule": {"optimizer.schedule": "constant"},
    "no-clipping": {"optimizer.clip_norm": 0.0},
}

# Without each ingredient that imdb_best.py adds to a BiLSTM with attention.
IMDB_BEST: dict[str, dict[str, Any]] = {
    "no-vectors": {"init_from": ""},
    "network-alone": {"model.ngrams": 0},
    "ngrams-alone": {"model.ngram_share": 1.0, "epochs": 1},
    "pairs-only": {"model.ngrams": 2},
    "no-gaps": {"model.ngram_gaps": False},
    "no-ending": {"model.ngram_ending": False},
    "no-keys": {"model.ngram_keyed": False, "model.ngram_rows": 2**25},
    "hidden-64": {"model.hidden_features": 64},
    "attention-only": {"model.pooling": ("attention",)},
}

# Config file's name without .py: its variants.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "imdb_tiny": IMDB_TINY,
    "imdb_best": IMDB_BEST,
}
