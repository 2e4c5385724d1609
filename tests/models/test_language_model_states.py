"""The states of a language model as inputs: against a loop, frozen, and the same in every form of the model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bahdanau_jax import AttentionClassifier
from bahdanau_jax.models.classifier import for_prediction
from bahdanau_jax.models.fixed import Fixed
from bahdanau_jax.models.language_model_states import LanguageModelStates
from tests.layers.plain_lstm import numpy_lstm

IDS = np.array([[1, 5, 7, 3, 0, 0], [1, 4, 19, 8, 2, 6], [0, 0, 0, 0, 0, 0]])


def states_of(vocab_size=20):
    return LanguageModelStates(
        vocab_size, embedding_features=5, hidden_features=4, rngs=nnx.Rngs(0)
    )


def classifier(**fields):
    sizes = dict(embedding_features=3, hidden_features=4, num_layers=1, dropout=0.0)
    sizes |= dict(language_model_features=6, language_model_embedding_features=5)
    model = AttentionClassifier(20, **(sizes | fields), rngs=nnx.Rngs(0))
    model.eval()
    return model


@nnx.jit
def call(model, *arguments, **named):
    return model(*arguments, **named)


@pytest.mark.slow
def test_they_are_the_outputs_of_both_directions_by_a_loop():
    states, mask = states_of(), IDS != 0
    found = np.asarray(call(states, jnp.array(IDS), jnp.array(mask)))
    x = np.asarray(states.embedding.embedding[...])[IDS]
    zeros = np.zeros((3, 4))
    for half, layer, reverse in (
        (slice(0, 4), states.encoder.forward, False),
        (slice(4, 8), states.encoder.backward, True),
    ):
        weights = (layer.kernel, layer.recurrent_kernel, layer.bias)
        outputs, _, _ = numpy_lstm(
            x, mask, *(np.asarray(w[...]) for w in weights), zeros, zeros, reverse
        )
        np.testing.assert_allclose(found[..., half], 3 * outputs, atol=1e-5)


@pytest.mark.slow
def test_the_encoder_reads_them_behind_the_word_vectors():
    model, ids = classifier(), jnp.array(IDS)
    inputs = model.embed(ids)
    assert inputs.shape == (3, 6, 3 + 2 * 6) == (3, 6, model.encoder[0].forward.kernel.shape[0])
    np.testing.assert_array_equal(inputs[..., :3], model.embedding(ids))
    np.testing.assert_array_equal(inputs[..., 3:], model.language_model(ids, ids != 0))
    np.testing.assert_allclose(call(model, ids, embedded=inputs)[0], call(model, ids)[0], atol=1e-6)
    other = model.language_model.embedding.embedding
    before = call(model, ids)[0]
    other[...] = -other[...]
    assert (np.abs(np.asarray(call(model, ids)[0] - before))[:2] > 0).all()


@pytest.mark.slow
def test_a_given_mask_hides_words_from_the_language_model_too():
    model, mask = classifier(), np.zeros((1, 6), bool)
    mask[0, :3] = True
    found = call(model, jnp.array(IDS[1:2]), jnp.array(mask))[0]
    np.testing.assert_allclose(found, call(model, jnp.array(IDS[1:2, :3]))[0], atol=1e-6)


@pytest.mark.slow
def test_training_leaves_the_language_model_as_it_is_and_changes_all_else():
    model, ids = classifier(), jnp.array(IDS)
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    fixed, trained = (nnx.to_flat_state(nnx.state(model, kind)) for kind in (Fixed, nnx.Param))
    fixed, trained = ([(p, np.array(x[...])) for p, x in found] for found in (fixed, trained))
    assert len(fixed) == 7 and all(path[0] == "language_model" for path, _ in fixed)
    assert not any(path[0] == "language_model" for path, _ in trained)

    @nnx.jit
    def step(model, optimizer):
        model.train()
        grads = nnx.grad(lambda model: jnp.sum((model(ids)[0] - 1) ** 2))(model)
        optimizer.update(model, grads)

    for _ in range(2):  # after the first, biases are no longer 0
        step(model, optimizer)
    after = dict(nnx.to_flat_state(nnx.state(model)))
    for path, x in fixed:
        np.testing.assert_array_equal(x, after[path][...])
    same = [path for path, x in trained if (x == after[path][...]).all()]
    assert same == []


@pytest.mark.slow
@pytest.mark.parametrize("fits", [True, False], ids=["table of products", "no table"])
def test_a_model_for_prediction_gives_the_same(fits, monkeypatch):
    if not fits:
        monkeypatch.setattr("bahdanau_jax.layers.prediction.TABLE_BYTES", 0)
    model = classifier(num_layers=2)
    faster = for_prediction(model)
    if faster is model:
        pytest.skip("needs the CPU kernel")
    assert (faster.language_model.embedding is None) == fits
    for found, expected in zip(call(faster, IDS), call(model, IDS), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert for_prediction(faster) is faster
    with pytest.raises(ValueError, match="int16 cannot be had: .* language model's states"):
        for_prediction(model, "int16")


@pytest.mark.slow
def test_nothing_is_promoted():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert np.isfinite(call(classifier(), jnp.array(IDS))[0]).all()
