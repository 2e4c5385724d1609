"""Words with the same neighbours get similar vectors, with the same bits each time."""

import sys

import numpy as np
import pytest

from bahdanau_jax.errors import InputError
from bahdanau_jax.recipes.word_vectors import skip_gram
from bahdanau_jax.token_ids import PAD, START, UNKNOWN

OPTIONS = dict(vocab_size=11, features=8, subsample=1.0, epochs=5)


def two_topics():
    rng = np.random.default_rng(0)
    topics = [4, 5, 6], [7, 8, UNKNOWN]
    return [np.array([START, *rng.choice(topics[i % 2], 20)]) for i in range(200)]


def test_words_of_one_topic_have_similar_vectors():
    vectors = skip_gram(two_topics(), **OPTIONS)
    first, second = vectors[[4, 5, 6]], vectors[[7, 8, UNKNOWN]]
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    within = min((first @ first.T).min(), (second @ second.T).min())
    assert within > 0.9 > 0.5 > (first @ second.T).max()


def test_vectors_of_unused_ids_start_and_padding_are_zero():
    vectors = skip_gram(two_topics(), **OPTIONS)
    assert vectors.dtype == np.float32 and vectors.shape == (11, 8)
    used = (vectors != 0).sum(axis=1) > 0
    assert np.flatnonzero(used).tolist() == [UNKNOWN, 4, 5, 6, 7, 8]
    assert not used[PAD] and not used[START]


def test_the_seed_fixes_every_bit():
    first, again, other = (skip_gram(two_topics(), **OPTIONS, seed=seed) for seed in (0, 0, 1))
    assert (first == again).all() and not (first == other).any(axis=1).all()


def test_after_epoch_is_called_and_can_stop_the_training():
    epochs = []
    skip_gram(two_topics(), **OPTIONS, after_epoch=epochs.append)
    assert epochs == [1, 2, 3, 4, 5]

    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        skip_gram(two_topics(), **OPTIONS, after_epoch=stop)


def test_without_gensim_one_line_names_the_pythons_that_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(InputError, match="need gensim: .*; expected Python 3.11 to 3.13"):
        skip_gram(two_topics(), **OPTIONS)
