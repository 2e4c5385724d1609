"""A network beside a linear model of n-grams: exact masks, and the network learns as it would alone."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_classifier import PARTS, SIZES, call, padded

from bahdanau_jax.data.batches import Batch
from bahdanau_jax.evaluation.metrics import loss_and_metrics
from bahdanau_jax.models.build import build_classifier
from bahdanau_jax.models.classifier import AttentionClassifier
from bahdanau_jax.models.ngrams import NgramClassifier
from bahdanau_jax.models.with_ngrams import WithNgrams
from bahdanau_jax.runs.console import parameter_count
from bahdanau_jax.training.steps import train_step

pytestmark = pytest.mark.slow  # trains, or compiles for long


@cache
def make(*, ngram_share=0.5, rows=500):
    network = AttentionClassifier(50, **SIZES, **PARTS, rngs=nnx.Rngs(0))
    model = WithNgrams(network, NgramClassifier(n=3, rows=rows), ngram_share=ngram_share)
    weights = model.ngrams.weights
    weights[...] = jnp.array(np.random.default_rng(0).normal(size=weights.shape), jnp.float32)
    model.eval()
    return model


@pytest.mark.parametrize("kind", ["behind", "in front", "in the middle", "300 more", "in a batch"])
def test_padding_changes_no_logits(kind):
    model = make()
    want, _ = call(model, padded("alone"))
    got, weights = call(model, padded(kind))
    np.testing.assert_allclose(got[0], want[0], atol=1e-5)
    assert (np.asarray(weights)[padded(kind) == 0] == 0).all()
    assert np.isfinite(got).all()


def test_logits_are_the_weighted_mean_of_network_and_linear_model():
    model = make(ngram_share=0.25)
    ids = jnp.array(padded("in a batch"))
    want = 0.75 * call(model.network, ids)[0] + 0.25 * model.ngrams(ids)
    np.testing.assert_allclose(call(model, ids)[0], want, atol=1e-6)


def test_scales_take_the_place_of_the_shares():
    model = make(ngram_share=0.25)
    ids = jnp.array(padded("in a batch"))
    fitted = WithNgrams(model.network, model.ngrams, ngram_share=0.25, fit_blend=True)
    fitted.eval()
    np.testing.assert_allclose(call(fitted, ids)[0], call(model, ids)[0], atol=1e-6)
    fitted.scales[...] = jnp.array([0.5, 2.0])
    want = 0.5 * call(model.network, ids)[0] + 2 * model.ngrams(ids)
    np.testing.assert_allclose(call(fitted, ids)[0], want, atol=1e-6)


def test_in_training_the_logits_are_the_networks_alone():
    model = make()
    ids = jnp.array(padded("in a batch"))
    want = call(model.network, ids)[0]
    in_training = nnx.view(model, only=WithNgrams, deterministic=False)
    np.testing.assert_array_equal(call(in_training, ids)[0], want)
    again = nnx.view(in_training, deterministic=True)
    np.testing.assert_array_equal(call(again, ids)[0], call(model, ids)[0])


def test_the_network_gets_the_gradient_of_its_own_loss():
    model = make()
    ids = jnp.array(padded("in a batch"))
    labels, real = jnp.array([1, 0, 0]), jnp.array([True, True, False])
    batch = Batch(ids, labels, real, jnp.arange(3))
    linear = np.asarray(model.ngrams.weights[...])
    grads = nnx.jit(nnx.grad(lambda m: loss_and_metrics(m(ids)[0], labels, real)[0]))(model.network)
    want = jax.tree.map(lambda p, g: p - g, nnx.state(model.network, nnx.Param), grads)

    in_training = nnx.view(model, only=WithNgrams, deterministic=False)
    optimizer = nnx.Optimizer(in_training, optax.sgd(1.0), wrt=nnx.Param)
    graphdef, state = nnx.split((in_training, optimizer))
    after, report = jax.jit(partial(train_step, graphdef))(state, batch)
    got = nnx.filter_state(after[0], nnx.Param)["network"]
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_array_equal(after[0]["ngrams"]["weights"][...], linear)
    assert report.metrics.count == 2


def test_what_was_fitted_counts_as_parameters():
    alone = AttentionClassifier(50, 2, **SIZES, **PARTS, rngs=nnx.Rngs(0))
    # weights, scales and a bias
    assert parameter_count(make(rows=1000)) == parameter_count(alone) + 2001


def test_gradients_reach_what_the_network_reads():
    model = make()
    ids = jnp.array([[1, 5, 7, 0]])
    embedded = model.embed(ids)
    np.testing.assert_allclose(
        call(model, ids, embedded=embedded)[0], call(model, ids)[0], atol=1e-6
    )
    grads = jax.jit(jax.grad(lambda x: model(ids, embedded=x)[0].sum()))(embedded)
    assert (np.abs(grads[0, :3]).sum(-1) > 0).all()


def test_fitting_changes_the_linear_model_alone():
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    ids = np.where(labels[:, None] == 1, 7, 5) * np.ones((24, 3), np.int32)
    ids[:, 1] = rng.integers(10, 50, 24)
    batch = Batch(ids, labels.astype(np.int32), np.ones(24, bool), np.arange(24))
    fields = dict(
        target="bahdanau_jax:AttentionClassifier",
        ngrams=2,
        ngram_rows=400,
        ngram_share=1.0,
        **SIZES,
    )
    model = build_classifier(fields, 50, 2, rngs=nnx.Rngs(0))
    before = jax.tree.leaves(nnx.state(model.network, nnx.Param))
    note = model.fit_before_training([batch], [])
    assert note.startswith("linear model: ")
    for a, b in zip(before, jax.tree.leaves(nnx.state(model.network, nnx.Param)), strict=True):
        np.testing.assert_array_equal(a, b)
    model.eval()
    logits, _ = call(model, ids)
    np.testing.assert_array_equal(logits[:, 0] > 0, labels == 1)
