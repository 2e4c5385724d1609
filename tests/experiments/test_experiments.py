"""Every config is valid, independent of the others, and changes what it says."""

import importlib
import json
from pathlib import Path

import pytest

from bahdanau_jax.runs.parse_config import flatten, parse_config
from experiments import (
    imdb,
    imdb_best,
    imdb_embedded,
    imdb_tiny,
    imdb_unmasked,
    rotten_tomatoes_best,
)

FOLDER = Path(imdb.__file__).parent
CONFIGS = [
    importlib.import_module(f"experiments.{file.stem}")
    for file in sorted(FOLDER.glob("*.py"))
    if "\ndef get_config(" in file.read_text(encoding="utf-8")
]


def differences(config) -> set[str]:
    base = flatten(imdb.get_config())
    return {name for name, value in flatten(config).items() if base[name] != value}


@pytest.mark.parametrize("module", CONFIGS, ids=lambda module: module.__name__)
def test_every_config_is_valid_and_says_how_to_run_it(module):
    config = module.get_config()
    parse_config(config)
    json.dumps(config.to_dict())
    name = module.__name__.split(".")[-1]
    assert f"./launch.sh --config=experiments/{name}.py" in module.__doc__


@pytest.mark.parametrize("module", CONFIGS, ids=lambda module: module.__name__)
def test_a_config_is_new_each_time(module):
    features = module.get_config().model.embedding_features
    module.get_config().seed = 12
    module.get_config().model.embedding_features = 9
    assert module.get_config().seed == 0
    assert module.get_config().model.embedding_features == features


def test_imdb_has_the_sizes_of_the_notebook():
    config = imdb.get_config()
    assert (config.vocab_size, config.max_length) == (10_000, 500)
    assert (config.batch_size, config.epochs) == (256, 3)
    optimizer = config.optimizer.to_dict()
    adam = dict(name="adam", learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-7)
    assert {name: optimizer[name] for name in adam} == adam
    model = config.model
    assert (model.embedding_features, model.hidden_features, model.num_layers) == (128, 64, 2)


def test_variants_change_only_what_they_say():
    assert differences(imdb_embedded.get_config()) == {"data.source"}
    assert differences(imdb_unmasked.get_config()) == {"model.mask_attention", "bucket_lengths"}
    assert differences(rotten_tomatoes_best.get_config()) == {
        *differences(imdb_best.get_config()),
        *("data.source", "data.validation_size", "data.test_size", "init_from"),
    }
    tiny = imdb_tiny.get_config()
    assert tiny.data.source == "made_up"
    assert tiny.optimizer.name == imdb.get_config().optimizer.name
