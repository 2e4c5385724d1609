"""language_model.py: what is predicted from what, and the sampled softmax against the whole one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bahdanau_jax.language_model import (
    BidirectionalLanguageModel,
    draw_candidates,
    language_model_loss,
    sampled_softmax_loss,
    word_shares,
)

VOCAB, WIDTH = 23, 6
EVERY_WORD = jnp.arange(VOCAB)
NO_CORRECTION = jnp.zeros(VOCAB)


def small_model(**options):
    options = {"embedding_features": WIDTH, "hidden_features": 5} | options
    return BidirectionalLanguageModel(VOCAB, **options, rngs=nnx.Rngs(0))


def some_ids(seed=0, shape=(3, 9)):
    return jnp.asarray(np.random.default_rng(seed).integers(1, VOCAB, shape))


def softmax_inputs(n=1300, seed=0):
    """More rows than one chunk holds, and not a whole number of chunks."""
    rng = np.random.default_rng(seed)
    features = jnp.asarray(rng.normal(size=(n, WIDTH)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(VOCAB, WIDTH)), jnp.float32)
    bias = jnp.asarray(rng.normal(size=VOCAB), jnp.float32)
    targets = jnp.asarray(rng.integers(0, VOCAB, n))
    weights = jnp.asarray(rng.random(n) * (rng.random(n) < 0.7) / n, jnp.float32)
    return features, targets, weights, table, bias


def test_with_every_word_a_candidate_it_is_the_softmax_and_so_are_its_gradients():
    features, targets, weights, table, bias = softmax_inputs()

    def sampled(features, table, bias):
        loss, _ = sampled_softmax_loss(
            features, targets, weights, table, bias, EVERY_WORD, NO_CORRECTION
        )
        return 3 * loss  # so that the incoming gradient counts

    def whole(features, table, bias):
        logits = features @ table.T + bias
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return 3 * jnp.sum(weights * losses)

    found, gradients = jax.value_and_grad(sampled, argnums=(0, 1, 2))(features, table, bias)
    expected, their_gradients = jax.value_and_grad(whole, argnums=(0, 1, 2))(features, table, bias)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for ours, theirs in zip(gradients, their_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_correct_counts_the_targets_that_are_likeliest_of_all():
    features, targets, weights, table, bias = softmax_inputs()
    _, correct = sampled_softmax_loss(
        features, targets, weights, table, bias, EVERY_WORD, NO_CORRECTION
    )
    hits = jnp.argmax(features @ table.T + bias, axis=-1) == targets
    assert correct == jnp.sum(hits & (weights > 0))


def test_the_sum_over_candidates_estimates_the_sum_over_all_other_words():
    _, _, _, table, bias = softmax_inputs()
    feature = jnp.full((1, WIDTH), 0.3)
    target = jnp.array([4])
    shares = word_shares(np.arange(1, VOCAB + 1))

    def sum_over_others(candidates, log_expected):  # from the loss: log(own + others) - log(own)
        own = jnp.exp(feature @ table[4] + bias[4])[0]
        loss, _ = sampled_softmax_loss(
            feature, target, jnp.ones(1), table, bias, candidates, log_expected
        )
        return own * (jnp.exp(loss) - 1)

    keys = jax.random.split(jax.random.key(0), 4000)
    draws = jax.vmap(lambda key: sum_over_others(*draw_candidates(key, shares, 20)))(keys)
    expected = sum_over_others(EVERY_WORD, NO_CORRECTION)
    spread = float(jnp.std(draws)) / len(keys) ** 0.5
    assert abs(float(jnp.mean(draws)) - float(expected)) < 4 * spread


def test_candidates_are_drawn_as_often_as_their_shares_say():
    counts = np.array([0, 0, 16, 81, 1])
    drawn, log_expected = draw_candidates(jax.random.key(1), word_shares(counts), 36_000)
    shares = np.array([0, 0, 8, 27, 1]) / 36  # counts ** 0.75
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 36_000, shares, atol=0.01)
    np.testing.assert_allclose(jnp.exp(log_expected), 36_000 * shares[drawn], rtol=1e-5)


@pytest.mark.parametrize("implementation", ["scan", "auto"])
def test_no_word_is_predicted_from_itself_or_from_beyond_it(implementation):
    model = small_model(implementation=implementation)
    ids = some_ids()
    features, targets, _ = model(ids)
    for place in range(ids.shape[1]):
        others = ids.at[:, place].set(1 + ids[:, place] % (VOCAB - 1))
        changed, their_targets, _ = model(others)
        same = jnp.all(changed == features, axis=(1, 3))  # [2, time-1]
        # Forward: the feature at t predicts word t+1 from words 0 to t.
        assert same[0, :place].all() and not same[0, place:].any()
        assert targets[0, :, place - 1].tolist() == ids[:, place].tolist() or place == 0
        # Backward: feature number t, at position t+1, predicts word t from words t+1 on.
        assert same[1, place:].all() and not same[1, :place].any()
        assert (their_targets[1] == others[:, :-1]).all()


def test_padding_is_neither_seen_nor_predicted():
    model = small_model()
    short = some_ids(1, (2, 5))
    longer = jnp.pad(short, ((0, 0), (0, 4)))

    def loss_and_gradients(ids):
        def loss(model):
            return language_model_loss(model, ids, EVERY_WORD, NO_CORRECTION)

        (mean, metrics), gradients = nnx.value_and_grad(loss, has_aux=True)(model)
        return mean, metrics, nnx.to_pure_dict(gradients)

    mean, metrics, gradients = loss_and_gradients(short)
    padded_mean, padded_metrics, padded_gradients = loss_and_gradients(longer)
    assert metrics.count == padded_metrics.count == 2 * 2 * 4
    np.testing.assert_allclose(mean, padded_mean, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
        gradients,
        padded_gradients,
    )


def test_a_row_of_padding_changes_nothing_and_all_padding_gives_zero():
    model = small_model()
    ids = some_ids(2, (2, 5))
    with_filler = jnp.concatenate([ids, jnp.zeros((1, 5), ids.dtype)])
    alone, _ = language_model_loss(model, ids, EVERY_WORD, NO_CORRECTION)
    beside, _ = language_model_loss(model, with_filler, EVERY_WORD, NO_CORRECTION)
    np.testing.assert_allclose(alone, beside, rtol=1e-6)
    nothing, metrics = language_model_loss(model, 0 * ids, EVERY_WORD, NO_CORRECTION)
    assert nothing == 0 and metrics.count == 0
