"""Padding never changes what an ensemble says, and each of its models learns as it would alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_classifier import SIZES, padded

from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.console import parameter_count
from bahdanau_jax.ensemble import Ensemble, make_classifier

PARTS = dict(pooling=("attention", "last", "max", "mean"), bigram_rows=40)


def make(**options):
    options = dict(members=2, ngrams=3, ngram_rows=500) | options
    model = Ensemble(50, **SIZES, **PARTS, **options, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for member in model.members:
        assert member.bigrams is not None
        table = member.bigrams.embedding
        table[...] = jnp.array(rng.normal(size=table.shape), jnp.float32)
    if model.ngrams is not None:
        weights = model.ngrams.weights
        weights[...] = jnp.array(rng.normal(size=weights.shape), jnp.float32)
    model.eval()
    return model


@pytest.mark.parametrize("kind", ["behind", "in front", "in the middle", "300 more", "in a batch"])
def test_padding_changes_no_logits(kind):
    model = make()
    want, _ = model(jnp.array(padded("alone")))
    got, weights = model(jnp.array(padded(kind)))
    np.testing.assert_allclose(got[0], want[0], atol=1e-5)
    assert (np.asarray(weights)[padded(kind) == 0] == 0).all()
    assert np.isfinite(got).all()


def test_logits_are_the_weighted_mean_of_all_models():
    model = make(ngram_share=0.25)
    ids = jnp.array(padded("in a batch"))
    assert model.ngrams is not None
    alone = [member(ids)[0] for member in model.members]
    want = 0.75 * (alone[0] + alone[1]) / 2 + 0.25 * model.ngrams(ids)
    np.testing.assert_allclose(model(ids)[0], want, atol=1e-6)
    np.testing.assert_allclose(model.separate(ids)[0], jnp.stack(alone), atol=1e-6)
    assert not np.allclose(alone[0], alone[1])


def test_each_member_gets_the_gradient_of_its_own_loss():
    import optax

    from bahdanau_jax.batches import Batch
    from bahdanau_jax.objective import loss_and_metrics
    from bahdanau_jax.steps import train_step

    model = make()
    assert model.ngrams is not None
    ids = jnp.array(padded("in a batch"))
    labels, real = jnp.array([1, 0, 0]), jnp.array([True, True, False])
    batch = Batch(ids, labels, real, jnp.arange(3))
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)

    def loss(member):
        return loss_and_metrics(member(ids)[0], labels, real)[0]

    want = []
    for member in model.members:
        grads = nnx.grad(loss)(member)
        want.append(jax.tree.map(lambda p, g: p - g, nnx.state(member, nnx.Param), grads))
    linear = np.asarray(model.ngrams.weights[...])
    after, report = train_step(*nnx.split((model, optimizer)), batch)
    for i, parameters in enumerate(want):
        got = nnx.filter_state(after[0], nnx.Param)["members"][i]
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(parameters), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_array_equal(after[0]["ngrams"]["weights"][...], linear)
    assert report.metrics.count == 2


def test_one_member_alone_is_the_classifier_itself():
    options = dict(members=1, ngrams=0, ngram_rows=8, ngram_share=0.5)
    model = make_classifier(50, 2, **SIZES, **options, rngs=nnx.Rngs(0))
    assert type(model) is AttentionClassifier
    want = AttentionClassifier(50, 2, **SIZES, rngs=nnx.Rngs(0))
    for a, b in zip(
        jax.tree.leaves(nnx.state(model, nnx.Param)),
        jax.tree.leaves(nnx.state(want, nnx.Param)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_what_was_fitted_counts_as_parameters():
    model = make(members=1, ngram_rows=1000)
    alone = AttentionClassifier(50, 2, **SIZES, **PARTS, rngs=nnx.Rngs(0))
    assert parameter_count(model) == parameter_count(alone) + 2001  # weights, scales and a bias


def test_gradients_reach_what_each_member_reads():
    sizes = dict(embedding_features=4, hidden_features=4)
    model = Ensemble(
        10, members=2, ngrams=2, ngram_rows=64, ngram_share=0.5, rngs=nnx.Rngs(0), **sizes
    )
    model.eval()
    ids = jnp.array([[1, 5, 7, 0]])
    embedded = model.embed(ids, ids != 0)
    np.testing.assert_array_equal(model(ids, embedded=embedded)[0], model(ids)[0])
    grads = jax.grad(lambda x: model(ids, embedded=x)[0].sum())(embedded)
    assert len(grads) == 2 and all((np.abs(g[0, :3]).sum(-1) > 0).all() for g in grads)
