"""Shifted texts: the direction that hurts most, its length, and the loss they add."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from bahdanau_jax.data.batches import Batch
from bahdanau_jax.evaluation.metrics import per_example_loss
from bahdanau_jax.training.adversarial import Norms, divergence, gradients, toward_doubt

RNG = np.random.default_rng(0)
TABLE, WEIGHTS = RNG.normal(size=(9, 3)), RNG.normal(size=(3, 1))
LABELLED, UNLABELLED = np.array([1, 0, 1]), np.array([-1, -1])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def forward(params, rest, ids, shift):
    """Logits of the summed word vectors."""
    vectors = params["table"][ids] + shift
    return jnp.sum(vectors, axis=1) @ params["weights"], rest


def loss_sum(logits, part):
    real = part.real & (part.labels >= 0)
    return jnp.sum(jnp.where(real, per_example_loss(logits, part.labels), 0))


def expected_loss(table, weights, batch, norms, shifts):
    """The loss in NumPy. For a linear model the worst shift of a text is known: the weights' direction."""
    time, direction = batch.ids.shape[1], WEIGHTS[:, 0] / np.linalg.norm(WEIGHTS)
    clean = table[batch.ids].sum(1) @ weights[:, 0]
    first = TABLE[batch.ids].sum(1) @ WEIGHTS[:, 0]  # a prediction from which shifts are computed
    labelled, total = batch.labels >= 0, 0.0
    rows = {"labelled": labelled.sum(), "virtual": (~labelled | (not norms.labelled)).sum()}
    for i, label in enumerate(batch.labels):
        if label >= 0:
            total -= np.log(sigmoid(clean[i] if label else -clean[i])) / rows["labelled"]
        adversarial = label >= 0 and norms.labelled
        length = norms.labelled if adversarial else norms.virtual
        sign = np.sign(sigmoid(first[i]) - label) if adversarial else shifts[i]
        # The same vector at each of `time` places, of `length` over all of them.
        moved = clean[i] + sign * length * np.sqrt(time) * (direction @ weights[:, 0])
        if adversarial:
            total -= np.log(sigmoid(moved if label else -moved)) / rows["labelled"]
        elif norms.virtual:
            p, q = sigmoid(first[i]), sigmoid(moved)
            total += (rel_entr(p, q) + rel_entr(1 - p, 1 - q)) / rows["virtual"]
    return total


@pytest.mark.parametrize("norms", [Norms(0.7, 0.0), Norms(0.0, 0.9), Norms(0.7, 0.9)])
def test_gradients_are_those_of_the_loss_in_numpy_with_the_worst_shifts(norms):
    labels = np.concatenate([LABELLED, UNLABELLED if norms.virtual else []]).astype(np.int32)
    n = len(labels)
    ids = np.random.default_rng(1).integers(1, 9, (n, 4)).astype(np.int32)
    batch = Batch(ids, labels, np.ones(n, bool), np.arange(n, dtype=np.int32))
    key = jax.random.key(0)
    with jax.enable_x64(True):
        params = {"table": jnp.asarray(TABLE), "weights": jnp.asarray(WEIGHTS)}
        virtual = n if not norms.labelled else max(1, n - len(LABELLED))

        @jax.jit
        def results(params, batch):
            logits = forward(params, None, ids, 0.0)[0]
            found = gradients(
                forward, loss_sum, params, None, batch,
                shift=jnp.zeros((n, 4, 3)), norms=norms,
                counts=(jnp.float64(len(LABELLED)), jnp.float64(virtual)), key=key,
            )  # fmt: skip
            return toward_doubt(key, logits)[:, 0], found

        signs, (grads, (metrics, _)) = jax.tree.map(np.asarray, results(params, batch))
    assert float(metrics.count) == len(LABELLED)

    def loss_at(name, index, step):
        moved = {"table": TABLE.copy(), "weights": WEIGHTS.copy()}
        moved[name][index] += step
        return expected_loss(moved["table"], moved["weights"], batch, norms, signs)

    for name, values in (("table", TABLE), ("weights", WEIGHTS)):
        for index in np.ndindex(values.shape):
            expected = (loss_at(name, index, 1e-5) - loss_at(name, index, -1e-5)) / 2e-5
            np.testing.assert_allclose(float(grads[name][index]), expected, rtol=1e-4, atol=1e-7)


def test_divergence_is_scipys():
    first, second = np.random.default_rng(0).normal(size=(2, 5, 3))
    expected = rel_entr(softmax(first, axis=1), softmax(second, axis=1)).sum(1)
    np.testing.assert_allclose(divergence(jnp.array(first), jnp.array(second)), expected, rtol=1e-5)
    two = np.stack([np.zeros(5), first[:, 0]], 1), np.stack([np.zeros(5), second[:, 0]], 1)
    expected = rel_entr(softmax(two[0], axis=1), softmax(two[1], axis=1)).sum(1)
    found = divergence(jnp.array(first[:, :1]), jnp.array(second[:, :1]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 4])
def test_the_virtual_direction_lies_where_the_divergence_grows(outputs):
    """Against the eigenvectors of the divergence's second derivatives by the shift."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        weights = jnp.asarray(rng.normal(size=(7, outputs)))
        point = jnp.asarray(rng.normal(size=7))
        read = lambda shift: jnp.tanh(point + shift) @ weights  # noqa: E731

        @jax.jit
        def bend_and_direction(zero):
            bend = jax.hessian(lambda d: divergence(read(zero)[None], read(d)[None])[0])(zero)
            logits, pull = jax.vjp(read, zero)
            return bend, pull(toward_doubt(jax.random.key(3), logits[None])[0])[0]

        bend, direction = bend_and_direction(jnp.zeros(7))
        values, vectors = np.linalg.eigh(np.asarray(bend))
    classes = max(outputs, 2)
    assert (np.abs(values[: -(classes - 1)]) < 1e-9).all() and values[-(classes - 1)] > 1e-4
    grows = vectors[:, -(classes - 1) :]
    direction = np.asarray(direction) / np.linalg.norm(direction)
    np.testing.assert_allclose(np.linalg.norm(grows.T @ direction), 1, rtol=1e-9)
