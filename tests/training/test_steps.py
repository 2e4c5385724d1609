"""A step in several parts is the same step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bahdanau_jax import AttentionClassifier
from bahdanau_jax.data.batches import Batch
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.metrics import per_example_loss
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


def one_step(model, microbatches, batch, norms=NO_SHIFTS):
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
    graphdef, state = nnx.split((model, optimizer))
    step = jax.jit(partial(train_step, graphdef, microbatches=microbatches, norms=norms))
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
