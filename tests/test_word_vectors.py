"""word_vectors.py: words that stand among the same words get similar vectors, the same each time."""

import numpy as np
import pytest

from bahdanau_jax.text import PAD, START, UNKNOWN
from bahdanau_jax.word_vectors import skip_gram

OPTIONS = dict(vocab_size=11, features=8, subsample=1.0, epochs=5)


def two_topics():
    rng = np.random.default_rng(0)
    topics = [4, 5, 6], [7, 8, UNKNOWN]
    return [np.array([START, *rng.choice(topics[i % 2], 20)]) for i in range(200)]


def test_words_of_one_topic_are_alike_and_others_are_not():
    vectors = skip_gram(two_topics(), **OPTIONS)
    first, second = vectors[[4, 5, 6]], vectors[[7, 8, UNKNOWN]]
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    within = min((first @ first.T).min(), (second @ second.T).min())
    assert within > 0.9 > 0.5 > (first @ second.T).max()


def test_ids_that_no_text_holds_and_start_and_pad_are_zero():
    vectors = skip_gram(two_topics(), **OPTIONS)
    assert vectors.dtype == np.float32 and vectors.shape == (11, 8)
    used = (vectors != 0).sum(axis=1) > 0
    assert np.flatnonzero(used).tolist() == [UNKNOWN, 4, 5, 6, 7, 8]
    assert not used[PAD] and not used[START]


def test_a_seed_fixes_every_bit_and_another_gives_others():
    first, again, other = (skip_gram(two_topics(), **OPTIONS, seed=seed) for seed in (0, 0, 1))
    assert (first == again).all() and not (first == other).any(axis=1).all()


def test_epochs_are_told_and_can_be_ended():
    epochs = []
    skip_gram(two_topics(), **OPTIONS, after_epoch=epochs.append)
    assert epochs == [1, 2, 3, 4, 5]

    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        skip_gram(two_topics(), **OPTIONS, after_epoch=stop)
