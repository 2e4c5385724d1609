"""A config's data section names the loader and its arguments."""

import sys
from types import ModuleType

import numpy as np
import pytest
from small_imdb import REVIEWS, check_dataset

from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.load import SOURCES, find_source, load_dataset
from bahdanau_jax.errors import InputError

FIELDS = dict(
    source="made_up",
    name="imdb_reviews",
    data_dir=None,
    path="",
    validation_path="",
    test_path="",
    text="text",
    label="label",
    validation_size=5,
    train_size=30,
    test_size=7,
    options={},
)  # what config.data holds


def fields(**changes):
    return FIELDS | changes


@pytest.fixture
def module(monkeypatch):
    """An empty module on the import path, named `mine`."""
    module = ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def three_texts(name="mine"):
    examples = Examples(["a", "b", "c"], np.array([0, 1, 0], np.int32), ["0", "1", "2"])
    return Dataset(name, ("x", "y"), examples, examples, lambda: examples, "three texts")


@pytest.mark.parametrize("source", SOURCES)
def test_every_short_name_is_a_loader_that_takes_the_fields(source):
    assert callable(find_source(fields(source=source)))


def test_the_seed_and_sizes_reach_the_made_up_reviews():
    first, again, other = (load_dataset(fields(), seed=seed) for seed in (0, 0, 1))
    test = check_dataset(first)
    assert (len(first.train), len(first.validation), len(test)) == (30, 5, 7)
    assert first.train.texts == again.train.texts != other.train.texts


def test_tfds_and_files_get_their_fields(prepared, tmp_path):
    dataset = load_dataset(fields(source="tfds", data_dir=str(prepared), validation_size=8), seed=0)
    assert (len(dataset.train), len(dataset.validation)) == (2 * REVIEWS - 8, 8)
    path = tmp_path / "a.csv"
    path.write_text("stars,body\n" + "".join(f"{i % 3},text {i}\n" for i in range(40)))
    own = load_dataset(fields(source="files", path=str(path), text="body", label="stars"), seed=0)
    assert (len(own.train), len(own.validation), len(check_dataset(own))) == (28, 5, 7)
    assert own.label_names == ("0", "1", "2")


def test_a_loader_of_your_own_gets_the_fields_it_names_and_all_options(module):
    calls = []

    def load(train_size, *, seed, extra, more=2):
        calls.append((train_size, seed, extra, more))
        return three_texts()

    module.load = load
    own = fields(source="mine:load", options={"extra": "x"})
    assert find_source(own) is load and not calls
    assert load_dataset(own, seed=4).name == "mine"
    assert calls == [(30, 4, "x", 2)]


def test_a_loader_with_keyword_arguments_gets_everything(module):
    found = {}
    module.load = lambda **given: found.update(given) or three_texts()
    load_dataset(fields(source="mine:load", options={"extra": 1}), seed=4)
    everything = fields(extra=1, seed=4)
    del everything["source"], everything["options"]
    assert found == everything


def test_an_option_replaces_a_field_of_the_same_name(module):
    module.load = lambda name, **others: three_texts(name)
    own = fields(source="mine:load", options={"name": "another"})
    assert load_dataset(own, seed=0).name == "another"


def test_a_config_without_options_is_read(module):
    old = fields()
    del old["options"]
    assert len(load_dataset(old, seed=0).train) == 30


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (
            "imdb",
            {},
            "config.data.source is 'imdb'; expected 'tfds', 'files', .*package.module:fun",
        ),
        ("mine:", {}, "config.data.source is 'mine:'; expected"),
        (
            "no_such_module:load",
            {},
            "config.data.source is 'no_such_module:load'; .*no_such_module",
        ),
        ("mine:nothing", {}, "config.data.source is 'mine:nothing'; .* nothing; expected"),
        ("mine:number", {}, "config.data.source is 'mine:number'; .*number; expected"),
        ("mine:needs_more", {}, "config.data.source: needs_more needs speed, wind; expected"),
        ("mine:plain", {"wind": 1}, "config.data.options has wind, which plain does not take"),
        ("tfds", {"wind": 1}, "config.data.options has wind, which load_tfds does not take"),
    ],
)
def test_a_source_that_cannot_be_called_is_refused_before_data_is_read(
    module, source, options, message
):
    def needs_more(name, speed, wind):
        raise AssertionError("called")

    def plain():
        raise AssertionError("called")

    module.number, module.needs_more, module.plain = 3, needs_more, plain
    for refused in (find_source, lambda given: load_dataset(given, seed=0)):
        with pytest.raises(InputError, match=message) as caught:
            refused(fields(source=source, options=options))
        assert "\n" not in str(caught.value)


def test_a_loader_must_return_a_dataset(module):
    module.load = lambda: ("texts", "labels")
    with pytest.raises(InputError, match="is 'mine:load', which returned tuple; expected a bahd"):
        load_dataset(fields(source="mine:load"), seed=0)
