"""The measures against their defining properties, and against models whose reasons are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax import Predictor, Vocabulary
from bahdanau_jax.data.synthetic import make_up
from bahdanau_jax.evaluation import faithfulness
from bahdanau_jax.evaluation.faithfulness import (
    ATTENTION,
    GRADIENT,
    INTEGRATED,
    LEFT_OUT,
    MEASURES,
    RANDOM,
)
from bahdanau_jax.models.classifier import AttentionClassifier
from bahdanau_jax.models.ngrams import NgramClassifier
from bahdanau_jax.models.with_ngrams import WithNgrams

pytestmark = pytest.mark.slow  # trains, or compiles for long

WORDS = [f"w{i}" for i in range(20)]


class OneWord(nnx.Module):
    """Gives class 1 log-odds of 4 where "w3" occurs, else -1; attends only to `attends_to`."""

    def __init__(self, attends_to: str):
        table = np.zeros((24, 2), np.float32)
        table[4 + 3] = 5.0, 0.0  # w3's vector
        self.table = nnx.Param(jnp.array(table))
        self.attends_to = 4 + WORDS.index(attends_to)
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))  # must be off

    def embed(self, ids):
        return self.table[...][ids]

    def __call__(self, ids, mask=None, *, embedded=None):
        embedded = self.embed(ids) if embedded is None else embedded
        weights = (ids == self.attends_to) * 0.9 + (ids != 0) * 0.001
        weights = weights + jnp.arange(ids.shape[1]) * 1e-6 * (ids != 0)  # no ties
        return self.dropout(embedded[:, :, :1].sum(axis=1)) - 1, weights


def predictor_of(model):
    return Predictor(model, Vocabulary(WORDS), label_names=("neg", "pos"), bucket_lengths=(8, 16))


TEXTS = [
    " ".join(np.random.default_rng(i).permutation([*WORDS[:8], *WORDS[10:13]])) for i in range(5)
]


def test_a_model_that_attends_to_its_reason():
    found = faithfulness.measure(predictor_of(OneWord("w3")), TEXTS)
    assert found.words.tolist() == [11] * 5
    # Without w3 the probability of class 1 falls from sigmoid(4) to sigmoid(-1); with only w3 it stays.
    fall = 1 / (1 + np.exp(-4.0)) - 1 / (1 + np.exp(1.0))
    for name in (ATTENTION, GRADIENT, INTEGRATED, LEFT_OUT):
        np.testing.assert_allclose(found.deleted[name], fall, atol=1e-5)
        np.testing.assert_allclose(found.kept[name], 0, atol=1e-5)
    assert (found.deleted[RANDOM][:, 0] < fall / 2).all()
    assert (found.kept[RANDOM][:, 0] > fall / 4).all()


def test_a_model_that_attends_elsewhere():
    found = faithfulness.measure(predictor_of(OneWord("w5")), TEXTS)
    fall = 1 / (1 + np.exp(-4.0)) - 1 / (1 + np.exp(1.0))
    np.testing.assert_allclose(found.deleted[ATTENTION][:, 0], 0, atol=1e-5)
    np.testing.assert_allclose(found.kept[ATTENTION][:, 0], fall, atol=1e-5)
    np.testing.assert_allclose(found.deleted[LEFT_OUT], fall, atol=1e-5)
    for values in found.agreement.values():
        assert values.shape == (5,)
    # The other three measures see that only w3 matters, so they agree fully.
    assert (found.agreement[GRADIENT, INTEGRATED] > 0.999).all()
    assert (found.agreement[GRADIENT, LEFT_OUT] > 0.999).all()


@pytest.fixture(scope="module", params=[2, 3])
def trained_like(request):
    """A model with large weights, so that its predictions depend on the words."""
    model = AttentionClassifier(
        24, request.param, embedding_features=5, hidden_features=4, attention_units=4,
        head_features=6, implementation="scan", rngs=nnx.Rngs(1),
    )  # fmt: skip
    model.embedding.embedding[...] *= 30
    names = ("a", "b", "c")[: request.param]
    return Predictor(model, Vocabulary(WORDS), label_names=names, bucket_lengths=(8, 16))


class WithoutEmbed(nnx.Module):
    def __init__(self):
        self.table = nnx.Param(jnp.ones(24))

    def __call__(self, ids, mask=None):
        weights = (ids != 0) / jnp.sum(ids != 0, axis=1, keepdims=True)
        return jnp.sum(self.table[...][ids] * weights, axis=1, keepdims=True), weights


def test_only_a_model_with_embed_is_measurable():
    for network, measurable in ((OneWord("w3"), True), (WithoutEmbed(), False)):
        for model in (network, WithNgrams(network, NgramClassifier(n=2, rows=8))):
            obstacle = faithfulness.obstacle(predictor_of(model))
            assert obstacle is None if measurable else "no attribute 'embed'" in str(obstacle)


def some_ids(predictor, n=5):
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(WORDS, rng.integers(2, 14))) for _ in range(n)]
    return predictor.vocabulary.encode_all(texts)


@partial(jax.jit, static_argnums=0)  # compiled once per length, not at each call
def logits_of(graphdef, state, ids, embedded):
    return nnx.merge(graphdef, state)(ids, embedded=embedded)[0]


def log_odds_of(predictor, ids, classes, embedded=None):
    ids = jnp.asarray(ids)[None]
    logits = logits_of(predictor.graphdef, predictor.state, ids, embedded)[0].astype(float)
    logits = np.asarray([0, logits[0]]) if len(logits) == 1 else np.asarray(logits)
    p = np.exp(logits) / np.exp(logits).sum()
    return float(np.log(p[classes] / (1 - p[classes])))


def test_integrated_gradients_sum_to_the_difference_of_the_log_odds(trained_like):
    ids = some_ids(trained_like)
    classes = np.arange(len(ids)) % len(trained_like.label_names)
    _, integral = faithfulness.gradients(trained_like, ids, classes, steps=200)
    for x, c, found in zip(ids, classes, integral, strict=True):
        zeros = jnp.zeros((1, len(x), 5))
        want = log_odds_of(trained_like, x, c) - log_odds_of(trained_like, x, c, zeros)
        assert found.shape == x.shape
        assert found.sum() == pytest.approx(want, abs=2e-3)


def test_gradient_times_input_agrees_with_finite_differences(trained_like):
    ids = some_ids(trained_like)
    classes = np.zeros(len(ids), int)
    at_input, _ = faithfulness.gradients(trained_like, ids, classes, steps=1)
    model = nnx.merge(trained_like.graphdef, trained_like.state)
    for x, found in zip(ids, at_input, strict=True):
        embedded = model.embed(jnp.asarray(x)[None])
        for i in range(len(x)):
            ends = [
                log_odds_of(trained_like, x, 0, embedded.at[0, i].multiply(1 + e))
                for e in (-1e-3, 1e-3)
            ]
            assert found[i] == pytest.approx((ends[1] - ends[0]) / 2e-3, abs=5e-3)


def test_leaving_out_agrees_with_predicting_the_shorter_text(trained_like):
    ids = some_ids(trained_like)
    whole = trained_like.predict_ids(ids)[0]
    classes = whole.argmax(1)
    found = faithfulness.leave_one_out(trained_like, ids, whole, classes)
    for x, p, c, changes in zip(ids, whole, classes, found, strict=True):
        assert changes.shape == (len(x) - 1,)
        for i, change in enumerate(changes):
            shorter = np.concatenate([x[: i + 1], x[i + 2 :]])
            without = trained_like.predict_ids([shorter])[0][0]
            assert change == pytest.approx(abs(p[c] - without[c]), abs=1e-5)


def test_a_real_run_gives_finite_figures(tiny_run):
    predictor = Predictor.load(tiny_run)
    texts = make_up(train_size=6, validation_size=1, test_size=1, seed=3).train.texts
    found = faithfulness.measure(predictor, [*texts, "one two", "word " * 100])
    assert len(found.words) == 8 and found.words.max() == 64
    assert set(found.deleted) == set(found.kept) == {*MEASURES, RANDOM}
    for values in (*found.deleted.values(), *found.kept.values()):
        assert values.shape == (8, len(faithfulness.SHARES)) and np.isfinite(values).all()


def test_the_interval_of_a_mean_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(1, 2, 400), np.nan]
    mean, low, high = faithfulness.mean_with_interval(values)
    assert mean == pytest.approx(values[:-1].mean())
    assert high - low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15) and low < mean < high
    assert np.isnan(faithfulness.mean_with_interval(np.full(3, np.nan))).all()
