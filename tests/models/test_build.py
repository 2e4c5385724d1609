"""Classifiers and attentions that a config names: built, tried before data is read, refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax import AttentionClassifier, BahdanauAttention
from bahdanau_jax.errors import InputError
from bahdanau_jax.models.build import build_classifier, check_classifier
from bahdanau_jax.runs.config import Model

SIZES = dict(embedding_features=4, hidden_features=3, attention_units=4, num_layers=1)


class DotAttention(nnx.Module):
    """Keeps the contract and subclasses nothing of ours."""

    def __init__(self, query_features, key_features, units, *, rngs):
        self.query = nnx.Linear(query_features, units, rngs=rngs)
        self.key = nnx.Linear(key_features, units, rngs=rngs)

    def __call__(self, query, keys, values=None, mask=None):
        scores = jnp.einsum("bu,btu->bt", self.query(query), self.key(keys))
        weights = jax.nn.softmax(scores, where=mask)
        return jnp.einsum("bt,btv->bv", weights, keys if values is None else values), weights


class OtherSignature(nnx.Module):
    def __init__(self, size, *, rngs):
        pass


class WeightsOfAnotherShape(DotAttention):
    def __call__(self, query, keys, values=None, mask=None):
        context, weights = super().__call__(query, keys, values, mask)
        return context, weights[:, None]


class NotCallable(DotAttention):
    __call__ = None  # pyright: ignore


class BagOfWords(nnx.Module):
    """A classifier of one's own: takes some of the config's fields, and an option."""

    def __init__(self, vocab_size, num_classes, *, embedding_features, scale=1.0, rngs):
        self.scale = scale
        self.embedding = nnx.Embed(vocab_size, embedding_features, rngs=rngs)
        self.output = nnx.Linear(
            embedding_features, 1 if num_classes == 2 else num_classes, rngs=rngs
        )

    def __call__(self, ids, mask=None):
        mask = ids != 0 if mask is None else mask
        weights = mask / jnp.maximum(mask.sum(1, keepdims=True), 1)
        mean = jnp.einsum("bt,btf->bf", weights, self.embedding(ids))
        return self.scale * self.output(mean), weights


def fields(**changes):
    return Model(**changes).model_dump()


def here(name):
    return f"{__name__}:{name}"


def test_the_default_is_the_classifier_with_the_configs_sizes():
    model = build_classifier(fields(**SIZES), 50, 2, rngs=nnx.Rngs(0))
    want = AttentionClassifier(50, 2, **SIZES, rngs=nnx.Rngs(0))
    assert type(model) is AttentionClassifier and type(model.attention) is BahdanauAttention
    ours, theirs = (jax.tree.leaves(nnx.state(m, nnx.Param)) for m in (model, want))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_an_attention_of_ones_own_takes_the_place_of_ours():
    changed = fields(**SIZES, attention=here("DotAttention"))
    check_classifier(changed)
    model = build_classifier(changed, 50, 3, rngs=nnx.Rngs(0))
    assert type(model.attention) is DotAttention
    logits, weights = model(jnp.array([[1, 5, 0]]))
    assert logits.shape == (1, 3) and float(weights[0, 2]) == 0


def test_a_classifier_of_ones_own_gets_the_fields_that_it_names_and_its_options():
    changed = fields(target=here("BagOfWords"), embedding_features=6, options={"scale": 3.0})
    check_classifier(changed, num_classes=4)
    model = build_classifier(changed, 50, 4, rngs=nnx.Rngs(0))
    assert model.embedding.embedding.shape == (50, 6) and model.scale == 3.0


@pytest.mark.parametrize(
    "changes, expected",
    [
        (dict(attention="no_such_module:Attention"), ["config.model.attention", "no_such_module"]),
        (dict(attention="math:Attention"), ["config.model.attention", "math", "Attention"]),
        (dict(attention="BahdanauAttention"), ["config.model.attention", "package.module:Name"]),
        (dict(target="bahdanau_jax:Nothing"), ["config.model.target", "Nothing"]),
        (dict(target="math:pi"), ["config.model.target", "math:pi"]),
        (dict(attention=here("OtherSignature")), ["OtherSignature", "expected"]),
        (dict(attention=here("WeightsOfAnotherShape")), ["WeightsOfAnotherShape", "weights of shape (3, 8)"]),
        (dict(attention=here("NotCallable")), ["NotCallable", "weights of shape (3, 8)"]),
        (dict(target=here("DotAttention")), ["config.model.target", "key_features"]),
        (dict(options={"scale": 1.0}), ["config.model", "scale"]),
    ],
)  # fmt: skip
def test_what_does_not_keep_the_contract_is_refused_in_one_line(changes, expected):
    with pytest.raises(InputError) as error:
        check_classifier(fields(**(SIZES | changes)))
    message = str(error.value)
    assert "\n" not in message and len(message) < 700
    for part in expected:
        assert part in message
