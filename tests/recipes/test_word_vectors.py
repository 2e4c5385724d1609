"""Words with the same neighbours get similar vectors, with the same bits each time."""

import sys

import numpy as np
import pytest

from bahdanau_jax.errors import InputError
from bahdanau_jax.recipes.word_vectors import SkipGram, normalized, topic_vectors
from bahdanau_jax.token_ids import PAD, START, UNKNOWN

OPTIONS = dict(vocab_size=11, features=8, subsample=1.0, epochs=5)


def two_topics():
    rng = np.random.default_rng(0)
    topics = [4, 5, 6], [7, 8, UNKNOWN]
    return [np.array([START, *rng.choice(topics[i % 2], 20)]) for i in range(200)]


def skip_gram(**options):
    model = SkipGram(two_topics(), **OPTIONS | options)
    for epoch in range(model.epochs):
        model.train_epoch(epoch)
    return model.vectors()


def test_words_of_one_topic_have_similar_vectors():
    vectors = skip_gram()
    first, second = vectors[[4, 5, 6]], vectors[[7, 8, UNKNOWN]]
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    within = min((first @ first.T).min(), (second @ second.T).min())
    assert within > 0.9 > 0.5 > (first @ second.T).max()


def test_vectors_of_unused_ids_start_and_padding_are_zero():
    vectors = skip_gram()
    assert vectors.dtype == np.float32 and vectors.shape == (11, 8)
    used = (vectors != 0).sum(axis=1) > 0
    assert np.flatnonzero(used).tolist() == [UNKNOWN, 4, 5, 6, 7, 8]
    assert not used[PAD] and not used[START]


def test_the_seed_fixes_every_bit():
    first, again, other = (skip_gram(seed=seed) for seed in (0, 0, 1))
    assert (first == again).all() and not (first == other).any(axis=1).all()


def test_epoch_by_epoch_gives_what_gensim_gives_in_one_call(caplog):
    from gensim.models import Word2Vec

    sentences = [[str(i) for i in ids if i != START] for ids in two_topics()]
    whole = Word2Vec(
        sentences,
        sg=1,
        vector_size=8,
        window=8,
        negative=5,
        sample=1.0,
        epochs=5,
        alpha=0.05,
        min_count=1,
        workers=1,
        seed=0,
    )
    with caplog.at_level("WARNING"):
        vectors = skip_gram()
    assert not caplog.records
    for name in whole.wv.index_to_key:
        np.testing.assert_array_equal(vectors[int(name)], whole.wv[name])


@pytest.mark.parametrize("after", [0, 3])
def test_another_model_goes_on_from_the_state_with_the_same_bits(after):
    first, second = SkipGram(two_topics(), **OPTIONS), SkipGram(two_topics(), **OPTIONS)
    for epoch in range(after):
        first.train_epoch(epoch)
    state = first.state()
    first.train_epoch(after)  # does not reach what was returned before
    second.set_state(state)
    for epoch in range(after, 5):
        second.train_epoch(epoch)
    assert (second.vectors() == skip_gram()).all()


def test_without_gensim_one_line_names_the_pythons_that_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(InputError, match="need gensim: .*; expected Python 3.11 to 3.13"):
        skip_gram()


def test_topic_vectors_are_those_of_scikit_learn_s_decomposition():
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    rng = np.random.default_rng(0)  # 60 texts of three topics, of ten words each
    texts = [
        np.array([START, *(4 + 10 * (i % 3) + rng.integers(0, 10, rng.integers(30, 50)))])
        for i in range(60)
    ]
    texts[5] = np.append(texts[5], 4)
    texts[3] = np.array([START])  # a text without a word
    counts = np.stack([np.bincount(ids, minlength=40) for ids in texts])
    counts[:, START] = 0
    holding = np.maximum((counts > 0).sum(axis=0), 1)
    weighed = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * np.log(60 / holding)
    # Its idf has another form; what else it does is the same.
    transformer = TfidfTransformer(use_idf=False, sublinear_tf=False)
    svd = TruncatedSVD(3, algorithm="arpack").fit(transformer.fit_transform(weighed))
    want = (svd.singular_values_[:, None] * svd.components_).T
    want = want / np.maximum(np.linalg.norm(want, axis=1, keepdims=True), 1e-9)
    got = topic_vectors(texts, vocab_size=40, features=3)
    assert got.dtype == np.float32 and not got[34:].any() and not got[:4].any()
    np.testing.assert_allclose(got @ got.T, want @ want.T, atol=0.01)  # up to a rotation
    assert (got[4:14] @ got[4:14].T).min() > 0.9 > 0.1 > (got[4:14] @ got[14:].T).max()


def test_fewer_texts_than_topics_leave_features_of_zeros():
    texts = [np.array([START, 4, 5]), np.array([6, 5]), np.array([7, 7, 4])]
    few, more = (topic_vectors(texts, vocab_size=9, features=n) for n in (3, 8))
    assert few.shape == (9, 3) and more.shape == (9, 8) and not more[:, 3:].any()
    np.testing.assert_allclose(more @ more.T, few @ few.T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(more[4:8], axis=1), 1, atol=1e-5)


def test_normalized_features_have_mean_0_and_variance_1_over_the_words_of_the_texts():
    rng = np.random.default_rng(0)
    vectors = rng.normal(3, 2, (9, 4)).astype(np.float32)
    vectors[:, 3] = 1.5  # a feature that does not vary
    texts = [rng.integers(4, 8, 30) for _ in range(5)]
    found = normalized(vectors, texts)
    read = found[np.concatenate(texts)]
    np.testing.assert_allclose(read.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(read.std(axis=0), [1, 1, 1, 0], atol=1e-5)
    assert found.dtype == np.float32 and not found[[0, 1, 2, 3, 8]].any()
