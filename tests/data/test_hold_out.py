"""Texts are held out by their hash; texts without labels exclude validation's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data.dataset import Dataset, Examples, unlabelled_texts
from bahdanau_jax.data.hold_out import hash_of, split_by_hash
from bahdanau_jax.errors import InputError


@given(st.data())
def test_the_texts_held_out_do_not_depend_on_the_order(data):
    texts = data.draw(st.lists(st.text("abc", max_size=2), min_size=2, max_size=20))
    size = data.draw(st.integers(1, len(texts) - 1))
    order = data.draw(st.permutations(range(len(texts))))
    examples = Examples(
        texts, np.arange(len(texts), dtype=np.int32), [*map(str, range(len(texts)))]
    )
    train, validation = split_by_hash(examples, size, "test_size")
    _, reordered = split_by_hash(examples.take(order), size, "test_size")
    assert sorted(validation.ids) == sorted(reordered.ids)
    # Every example is on one side, copies of a text together.
    assert sorted([*train.ids, *validation.ids]) == sorted(examples.ids)
    assert not set(train.texts) & set(validation.texts)
    assert len(validation) <= size
    if len(set(texts)) == len(texts):
        assert len(validation) == size


def test_folds_hold_out_each_text_once():
    texts = [f"text {i}" for i in range(10)] + ["text 3"]
    examples = Examples(texts, np.zeros(11, np.int32), [*map(str, range(11))])
    folds = [split_by_hash(examples, 4, "validation_size", fold) for fold in range(3)]
    assert sorted(x for _, held_out in folds for x in held_out.ids) == sorted(examples.ids)
    for rest, held_out in folds:
        assert sorted([*rest.ids, *held_out.ids]) == sorted(examples.ids)
        assert not set(rest.texts) & set(held_out.texts)
    assert folds[0][1].ids == split_by_hash(examples, 4, "validation_size")[1].ids
    with pytest.raises(
        InputError, match="validation_fold is 5; expected less than 3, since 11 texts"
    ):
        split_by_hash(examples, 4, "validation_size", 5)


def test_hashes_stay_the_same_for_good():
    # Other values would move texts between train, validation and test of existing runs.
    assert hash_of("A fine film.") == 6323591280460885921
    assert hash_of("\ud83d é") == 17428936478669974342


def test_size_0_holds_out_a_tenth():
    texts = [f"text {i}" for i in range(35)]
    examples = Examples(texts, np.zeros(35, np.int32), texts)
    rest, held_out = split_by_hash(examples, 0, "test_size")
    assert (len(rest), len(held_out)) == (32, 3)


def test_unlabelled_texts_exclude_copies_of_validation_texts():
    def examples(*texts):
        return Examples(texts, np.zeros(len(texts), np.int32), texts)

    def dataset(*unlabelled):
        train, validation = examples("a"), examples("b", "c")
        return Dataset(
            "x", ("neg", "pos"), train, validation, lambda: train, "x", lambda: list(unlabelled)
        )

    assert unlabelled_texts(dataset("d", "c", "a", "d"), "config.unlabelled") == ["d", "a", "d"]
    for without in (dataset(), dataset("b")):
        with pytest.raises(InputError, match="^config.unlabelled: x has no texts without labels$"):
            unlabelled_texts(without, "config.unlabelled")
