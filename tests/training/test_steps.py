"""A step in several parts is the same step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.special import softmax

from bahdanau_jax import AttentionClassifier
from bahdanau_jax.data.batches import Batch
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.metrics import per_example_loss
from bahdanau_jax.models.ngrams import NgramClassifier
from bahdanau_jax.models.with_ngrams import WithNgrams
from bahdanau_jax.training.adversarial import NO_SHIFTS, Norms
from bahdanau_jax.training.steps import choose_microbatches, train_step


def small_model(dropout=0.0):
    return AttentionClassifier(
        30, embedding_features=6, hidden_features=4, num_layers=1, attention_units=5,
        dropout=dropout, head_dropout=dropout, rngs=nnx.Rngs(0),
    )  # fmt: skip


def small_batch(rows=12, time=7, fillers=3):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 30, (rows, time)).astype(np.int32)
    ids[np.arange(time) >= rng.integers(1, time + 1, (rows, 1))] = 0
    ids[rows - fillers :] = 0
    real = np.arange(rows) < rows - fillers
    labels = np.where(real, rng.integers(0, 2, rows), 0).astype(np.int32)
    return Batch(ids, labels, real, np.where(real, np.arange(rows), -1).astype(np.int32))


def one_step(model, microbatches, batch, norms=NO_SHIFTS, pseudo_labels=0.0):
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
    graphdef, state = nnx.split((model, optimizer))
    options = dict(microbatches=microbatches, norms=norms, pseudo_labels=pseudo_labels)
    step = jax.jit(partial(train_step, graphdef, **options))
    state, report = step(state, batch)
    return nnx.merge(graphdef, state)[0], report.metrics


def parameters(model):
    return nnx.state(model, nnx.Param)


@pytest.mark.slow
@pytest.mark.parametrize("microbatches", [1, 2, 4, 12])
def test_parts_make_the_same_step(microbatches):
    batch = small_batch()

    def mean_loss(model):
        logits = model(jnp.asarray(batch.ids[batch.real]))[0]
        return jnp.mean(per_example_loss(logits, batch.labels[batch.real]))

    loss, gradient = nnx.jit(nnx.value_and_grad(mean_loss))(small_model())
    expected = jax.tree.map(jnp.subtract, parameters(small_model()), gradient)  # SGD of rate 1
    model, metrics = one_step(small_model(), microbatches, batch)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7),
        parameters(model), expected,
    )  # fmt: skip
    assert float(metrics.count) == batch.real.sum() == 9
    np.testing.assert_allclose(metrics.loss_sum / metrics.count, loss, rtol=1e-6)


@pytest.mark.slow
def test_each_part_draws_its_own_dropout():
    rows = small_batch(rows=4, fillers=0)
    same = Batch(*(np.repeat(x[:1], 4, axis=0) for x in rows))
    halves = [one_step(small_model(dropout=0.5), n, same)[1].loss_sum for n in (1, 4)]
    assert halves[0] != halves[1]
    model = small_model(dropout=0.5)
    counts = nnx.state(one_step(model, 4, same)[0], nnx.RngCount)
    once = nnx.state(one_step(small_model(dropout=0.5), 1, same)[0], nnx.RngCount)
    draws = [int(x) for x in jax.tree.leaves(counts)]
    assert max(draws) == 4 * max(int(x) for x in jax.tree.leaves(once)) > 0


def test_how_many_parts():
    assert choose_microbatches(0, batch_size=256, devices=1) == 4
    assert choose_microbatches(0, batch_size=256, devices=2) == 4
    assert choose_microbatches(0, batch_size=50, devices=1) == 1
    assert choose_microbatches(0, batch_size=200, devices=8) == 1  # 25 rows a device, not halves
    assert choose_microbatches(8, batch_size=256, devices=1) == 8
    with pytest.raises(InputError, match=r"config\.microbatches is 3; expected a divisor .*256"):
        choose_microbatches(3, batch_size=256, devices=1)


@pytest.mark.slow
def test_parts_make_the_same_step_on_shifted_texts_with_and_without_labels():
    batch = small_batch(fillers=0)
    batch.labels[::3] = -1
    norms = Norms(0.5, 0.8)
    (whole, metrics), (parts, _) = (one_step(small_model(), n, batch, norms) for n in (1, 12))
    assert float(metrics.count) == (batch.labels >= 0).sum() == 8
    # Each part draws its own sign of a virtual shift. Small shifts of either sign change as much.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-3),
        parameters(whole),
        parameters(parts),
    )
    (plain, _), (shifted, _) = (
        one_step(small_model(), 1, batch, norms) for norms in (Norms(1e-6), Norms(0.5))
    )
    moved = jax.tree.map(
        lambda x, y: float(jnp.abs(x - y).max()), parameters(plain), parameters(shifted)
    )
    assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.slow
def test_a_text_without_a_label_changes_nothing_without_a_virtual_shift():
    batch = small_batch(fillers=0)
    labels = batch.labels.copy()
    labels[1::2] = -1
    first = one_step(small_model(), 1, batch._replace(labels=labels), Norms(0.5))[0]
    some = Batch(*(x[::2] for x in batch))
    second = one_step(small_model(), 1, some, Norms(0.5))[0]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        parameters(first), parameters(second),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize("classes", [2, 3])
def test_pseudo_labels_are_the_classes_of_which_the_ngrams_are_sure(microbatches, classes):
    batch = small_batch()
    batch.labels[:9:2] = -1

    def with_ngrams():
        network = AttentionClassifier(
            30, embedding_features=6, hidden_features=4, num_layers=1, attention_units=5,
            num_classes=classes, dropout=0.0, head_dropout=0.0, rngs=nnx.Rngs(0),
        )  # fmt: skip
        model = WithNgrams(network, NgramClassifier(n=1, rows=64, num_classes=classes))
        rng = np.random.default_rng(1)
        model.ngrams.weights[...] = jnp.asarray(
            rng.normal(size=model.ngrams.weights.shape), jnp.float32
        )
        model.ngrams.squared_scales[...] = jnp.ones(64)
        return model

    def expected_loss(network, labels):
        logits = network(jnp.asarray(batch.ids[batch.real]))[0]
        losses = per_example_loss(logits, np.maximum(labels, 0))
        return (
            jnp.sum(jnp.where(labels >= 0, losses, 0)) / 9
        )  # texts of an unsure class add nothing

    said = np.asarray(with_ngrams().ngrams(jnp.asarray(batch.ids[batch.real])), np.float64)
    teacher = softmax(np.concatenate([0 * said, said], 1) if classes == 2 else said, axis=1)
    labels, unknown = batch.labels[batch.real], batch.labels[batch.real] < 0
    surest = teacher.max(axis=1)
    threshold = float(np.median(surest[unknown])) - 1e-4
    found = np.where(surest >= threshold, teacher.argmax(axis=1), -1)
    assert set((found[unknown] >= 0).tolist()) == {True, False}
    expected_labels = np.where(unknown, found, labels).astype(np.int32)
    start = with_ngrams()
    gradient = nnx.jit(nnx.grad(partial(expected_loss, labels=expected_labels)))(start.network)
    expected = jax.tree.map(jnp.subtract, parameters(start.network), gradient)
    model, metrics = one_step(with_ngrams(), microbatches, batch, pseudo_labels=threshold)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        parameters(model.network), expected,
    )  # fmt: skip
    np.testing.assert_array_equal(model.ngrams.weights[...], start.ngrams.weights[...])
    assert float(metrics.count) == 4  # figures are of labelled texts
