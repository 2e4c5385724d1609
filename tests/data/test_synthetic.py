"""Made-up reviews: fixed by the seed, and learnable."""

import numpy as np
import pytest
from small_imdb import check_dataset

from bahdanau_jax.data.synthetic import make_up
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError


def test_made_up_reviews_are_the_same_for_the_same_seed():
    def make(seed):
        return make_up(train_size=30, validation_size=10, test_size=11, seed=seed)

    first, again, other = make(0), make(0), make(1)
    test = check_dataset(first)
    assert (len(first.train), len(first.validation), len(test)) == (30, 10, 11)
    assert first.train.texts == again.train.texts
    assert first.train.labels.tolist() == again.train.labels.tolist()
    assert first.train.texts != other.train.texts
    assert not set(first.train.texts) & set(test.texts)
    assert first.train.labels.sum() == 15
    with pytest.raises(InputError, match="validation_size is 0; expected at least 1"):
        make_up(train_size=5, validation_size=0, test_size=5)


def test_made_up_reviews_can_be_learned_and_vary_in_length():
    dataset = make_up(train_size=2_000, validation_size=300, test_size=500)
    vocabulary = Vocabulary.build(dataset.train.texts, size=10_000)

    def count(examples):  # [n, vocabulary]
        return np.stack(
            [
                np.bincount(ids, minlength=len(vocabulary))
                for ids in vocabulary.encode_all(examples.texts)
            ]
        )

    lengths = count(dataset.train).sum(1) - 1
    assert lengths.min() >= 5
    assert lengths.max() > 100
    # A linear rule on word counts: the words' log odds.
    train, test = count(dataset.train), count(dataset.read_test())
    labels = dataset.train.labels
    odds = np.log1p(train[labels == 1].sum(0)) - np.log1p(train[labels == 0].sum(0))
    accuracy = np.mean((test @ odds > 0) == dataset.read_test().labels)
    assert 0.93 < accuracy
