"""The whole model: padding of any kind or length never changes a review's logits or gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.evaluation.metrics import loss_and_metrics
from bahdanau_jax.models.classifier import AttentionClassifier, _pool

SIZES = dict(embedding_features=6, hidden_features=5, attention_units=4, head_features=3)


def make(num_classes=2, **options):
    model = AttentionClassifier(50, num_classes, **SIZES, **options, rngs=nnx.Rngs(0))
    model.eval()
    return model


REVIEW = np.random.default_rng(0).integers(1, 50, 8).astype(np.int32)


def padded(kind):
    """The review as row 0 of a batch, the way `kind` says."""
    zeros = np.zeros(5, np.int32)
    other = np.random.default_rng(1).integers(1, 50, 13).astype(np.int32)
    return {
        "alone": REVIEW[None],
        "behind": np.concatenate([REVIEW, zeros])[None],
        "in front": np.concatenate([zeros, REVIEW])[None],
        "in the middle": np.concatenate([REVIEW[:3], zeros, REVIEW[3:]])[None],
        "300 more": np.concatenate([REVIEW, np.zeros(300, np.int32)])[None],
        "in a batch": np.stack([np.concatenate([REVIEW, zeros]), other, 0 * other]),
    }[kind]


PARTS = dict(pooling=("attention", "last", "max", "mean"))


@nnx.jit
def call(model, *arguments, **named):
    """One compilation in place of hundreds: outside jit, JAX compiles each operation by itself."""
    return model(*arguments, **named)


@nnx.jit
def run(model, ids):
    def loss(model):
        logits, weights = model(ids)
        return jnp.sum(logits[0] ** 2), (logits, weights)

    return nnx.value_and_grad(loss, has_aux=True)(model)


def logits_and_gradients(model, ids):
    (_, (logits, weights)), grads = run(model, jnp.asarray(ids))
    return logits, weights, nnx.to_pure_dict(grads)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, PARTS], ids=["plain", "all parts"])
@pytest.mark.parametrize("kind", ["behind", "in front", "in the middle", "300 more", "in a batch"])
def test_padding_changes_neither_logits_nor_gradients(kind, options):
    model = make(**options)
    want_logits, want_weights, want_grads = logits_and_gradients(model, padded("alone"))
    ids = padded(kind)
    logits, weights, grads = logits_and_gradients(model, ids)
    np.testing.assert_allclose(logits[0], want_logits[0], atol=1e-6)
    np.testing.assert_allclose(np.asarray(weights[0])[ids[0] != 0], want_weights[0], atol=1e-6)
    assert (np.asarray(weights)[ids == 0] == 0).all()
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    assert (grads["embedding"]["embedding"][0] == 0).all()  # the padding id learns nothing


@pytest.mark.slow
def test_the_mask_may_be_given():
    model = make()
    ids, mask = padded("behind"), np.zeros((1, 13), bool)
    mask[0, :4] = True
    np.testing.assert_allclose(
        call(model, ids, jnp.array(mask))[0], call(model, REVIEW[None, :4])[0], atol=1e-6
    )


@pytest.mark.parametrize("options", [{}, PARTS], ids=["plain", "all parts"])
def test_rows_without_a_real_token_give_finite_logits_and_gradients(options):
    logits, weights, grads = logits_and_gradients(make(**options), np.zeros((2, 6), np.int32))
    assert np.isfinite(logits).all() and (weights == 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
def test_without_a_mask_on_the_attention_padding_takes_part():
    model = make(mask_attention=False)
    _, weights, _ = logits_and_gradients(model, padded("behind"))
    assert (np.asarray(weights)[0, len(REVIEW) :] > 0).all()
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-6)
    alone = call(model, padded("alone"))[0]
    assert abs(float((call(model, padded("300 more"))[0] - alone)[0, 0])) > 1e-6


def test_one_logit_for_two_classes_and_one_per_class_for_more():
    assert call(make(2), REVIEW[None])[0].shape == (1, 1)
    assert call(make(5), REVIEW[None])[0].shape == (1, 5)


@pytest.mark.slow
def test_logits_and_weights_are_float32_under_bfloat16():
    model = make(dtype=jnp.bfloat16)
    logits, weights = call(model, REVIEW[None])
    assert logits.dtype == weights.dtype == jnp.float32
    full = make()
    np.testing.assert_allclose(logits, call(full, REVIEW[None])[0], atol=2e-2)


def test_parameters_are_the_notebooks():
    model = AttentionClassifier(10_000, rngs=nnx.Rngs(0))
    count = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    bilstm = 2 * (128 * 256 + 64 * 256 + 256)  # 128 features in for both layers
    attention = 128 * 64 + 128 * 64 + 64 + 64
    assert count == 10_000 * 128 + 2 * bilstm + attention + (128 * 20 + 20) + (20 + 1)
    embedding = np.asarray(model.embedding.embedding[...])
    assert -0.05 <= embedding.min() < -0.0499 and 0.0499 < embedding.max() < 0.05


def test_dropout_is_on_in_training_and_off_in_evaluation():
    model = make()
    ids = REVIEW[None]
    np.testing.assert_array_equal(call(model, ids)[0], call(model, ids)[0])
    model.train()
    draws = [float(call(model, ids)[0][0, 0]) for _ in range(4)]
    assert len(set(draws)) > 1


@pytest.mark.slow
def test_filler_rows_do_not_count():
    model = make()
    ids, labels = padded("in a batch"), np.array([1, 0, 1])
    real = np.array([True, True, False])

    def loss(model, ids, labels, real):
        return loss_and_metrics(model(ids)[0], labels, real)

    grad = nnx.jit(nnx.value_and_grad(loss, has_aux=True))
    (value, metrics), grads = grad(model, ids, labels, real)
    (want, want_metrics), want_grads = grad(model, ids[:2], labels[:2], real[:2])
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(metrics, want_metrics, rtol=1e-6)
    for got, expected in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_pooling_is_over_real_positions():
    outputs = jnp.array([[[-3.0, 1.0], [-1.0, 2.0], [0.0, 0.0]], [[0.0, 0.0]] * 3])
    pooled = _pool(outputs, jnp.array([[True, True, False], [False] * 3]))
    np.testing.assert_array_equal(pooled["max"], [[-1.0, 2.0], [0.0, 0.0]])
    np.testing.assert_array_equal(pooled["mean"], [[-2.0, 1.5], [0.0, 0.0]])


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="expected some of attention, last, max, mean"):
        make(pooling=("sum",))


@pytest.mark.slow
def test_embedded_stands_in_for_the_embedding_of_the_ids():
    model, ids = make(), jnp.asarray(padded("behind"))
    embedded = model.embed(ids)
    np.testing.assert_allclose(
        call(model, ids, embedded=embedded)[0], call(model, ids)[0], atol=1e-6
    )
    grads = jax.jit(jax.grad(lambda x: model(ids, embedded=x)[0].sum()))(embedded)
    assert (grads[ids == 0] == 0).all() and (np.abs(grads[ids != 0]).sum(-1) > 0).all()
