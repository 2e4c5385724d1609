"""The language model's losses against loops over words, and its normalised vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.models.language_model import LanguageModel

COUNTS = np.random.default_rng(0).integers(1, 50, 20)
IDS = np.array([[1, 5, 7, 3, 0, 0], [1, 4, 19, 8, 2, 6], [1, 0, 0, 0, 0, 0]])


def model(dropout=0.0):
    return LanguageModel(
        COUNTS, embedding_features=5, hidden_features=4, dropout=dropout, rngs=nnx.Rngs(0)
    )


@nnx.jit
def loss_of(network, ids):
    return network.loss(ids)


def test_each_feature_of_the_vectors_has_mean_0_and_variance_1_over_the_words_of_the_texts():
    vectors = np.asarray(model().vectors(), np.float64)
    words = np.repeat(np.arange(20), COUNTS)  # every word as often as the texts have it
    np.testing.assert_allclose(vectors[words].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(vectors[words].var(0), 1, rtol=1e-3)


def test_the_loss_is_the_cross_entropy_of_each_word_from_either_side():
    network = model()
    loss, count = loss_of(network, jnp.array(IDS))
    outputs = np.asarray(network.encoder[0](network.vectors()[IDS], jnp.array(IDS != 0))[0])
    kernel, bias = np.asarray(network.kernel[...]), np.asarray(network.bias[...])
    losses = []
    for row, ids in enumerate(IDS):
        length = (ids != 0).sum()
        for t in range(length):
            for half, target in ((outputs[row, t, :4], t + 1), (outputs[row, t, 4:], t - 1)):
                if 0 <= target < length:
                    logits = (kernel @ half + bias).astype(np.float64)
                    losses.append(np.log(np.exp(logits).sum()) - logits[ids[target]])
    assert int(count) == len(losses) == 2 * (3 + 5)
    np.testing.assert_allclose(float(loss), np.mean(losses), rtol=1e-5)


def test_no_word_is_predicted_from_itself():
    """What predicts a word does not change with it."""
    network = model()
    other = IDS.copy()
    other[1, 3] = 9
    read = jax.jit(lambda ids: network.encoder[0](network.vectors()[ids], ids != 0)[0])
    before, after = np.asarray(read(IDS))[1], np.asarray(read(other))[1]
    assert (before[:3, :4] == after[:3, :4]).all() and (before[4:, 4:] == after[4:, 4:]).all()
    assert (before[3] != after[3]).any()


def test_with_many_candidates_the_sampled_loss_is_the_full_one():
    network, keys = model(), jax.random.split(jax.random.key(0), 8)
    full = float(loss_of(network, jnp.array(IDS))[0])
    sampled = jax.jit(lambda key: network.sampled_loss(jnp.array(IDS), candidates=4_000, key=key))
    # The word itself competes once, and each of the others about as often as its logit is lowered for.
    np.testing.assert_allclose(np.mean([float(sampled(key)) for key in keys]), full, rtol=0.01)


def test_training_mode_drops_features_and_evaluation_does_not():
    network = model(dropout=0.5)
    first, second = (float(loss_of(network, jnp.array(IDS))[0]) for _ in range(2))
    assert first != second
    network.eval()
    first, second = (float(loss_of(network, jnp.array(IDS))[0]) for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_nothing_is_promoted():
    """As the layers, with the flags that forbid it."""
    key = jax.random.key(0)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        network = model(dropout=0.5)

        @nnx.jit
        def losses(network, ids):
            return network.sampled_loss(ids, candidates=5, key=key), network.loss(ids)[0]

        assert np.isfinite(losses(network, jnp.array(IDS))).all()
