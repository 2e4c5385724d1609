"""A run of a language model: learns, resumes to the same bits, and a classifier starts from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax import AttentionClassifier
from bahdanau_jax.errors import InputError
from bahdanau_jax.models.language_model import LanguageModel
from bahdanau_jax.recipes.warm_start import start_from
from bahdanau_jax.runs.config import default_config
from bahdanau_jax.runs.language_model_config import LanguageModelConfig
from bahdanau_jax.runs.preemption import Stopped, StopSignals
from bahdanau_jax.runs.restore_model import restore_part
from bahdanau_jax.training.language_model import train_language_model


def tiny():
    config = default_config(LanguageModelConfig)
    config.data.source = "made_up"
    config.data.train_size, config.data.validation_size = 60, 20
    config.unlabelled = False
    config.vocab_size, config.max_length, config.bucket_lengths = 60, 24, (24,)
    config.model.embedding_features = config.model.hidden_features = 6
    config.candidates, config.batch_size, config.epochs, config.save_every_steps = 20, 16, 2, 3
    config.optimizer.learning_rate = 0.02
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language_model") / "run"
    return folder, train_language_model(tiny(), folder)


def arrays(folder):
    model = LanguageModel(np.ones(60), embedding_features=6, hidden_features=6, rngs=nnx.Rngs(0))
    names = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    step, found = restore_part(folder, names)
    return step, found


@pytest.mark.slow
def test_perplexity_falls_below_that_of_guessing(run):
    folder, result = run
    first, second = result["perplexities"]
    assert second < first < 60
    assert (folder / "result.json").exists()


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_bits(run, tmp_path, monkeypatch):
    folder, result = run
    asked = iter([None] * 4 + ["SIGTERM"])
    with monkeypatch.context() as patch:
        patch.setattr(StopSignals, "asked_after_step", lambda self: next(asked))
        with pytest.raises(Stopped, match="after step 5"):
            train_language_model(tiny(), tmp_path / "run")
    again = train_language_model(tiny(), tmp_path / "run")
    assert again["perplexities"] == result["perplexities"]
    first, second = arrays(folder), arrays(tmp_path / "run")
    assert first[0] == second[0] == result["steps"]
    jax.tree.map(np.testing.assert_array_equal, first[1], second[1])
    assert train_language_model(tiny(), tmp_path / "run")["steps"] == result["steps"]  # finished


@pytest.mark.slow
def test_a_classifier_starts_from_its_normalised_vectors_and_its_layer(run):
    folder, _ = run
    network = AttentionClassifier(
        60, embedding_features=6, hidden_features=6, num_layers=1, rngs=nnx.Rngs(1)
    )
    start_from(folder, network)
    _, found = arrays(folder)
    table = network.embedding.embedding[...]
    np.testing.assert_array_equal(table, found["embedding"]["embedding"])
    # Normalised already: normalising changes nothing.
    model = LanguageModel(np.ones(60), embedding_features=6, hidden_features=6, rngs=nnx.Rngs(0))
    model.embedding.embedding[...] = jnp.asarray(table)
    assert float(jnp.abs(jnp.std(table, axis=0)).min()) > 0.1
    np.testing.assert_array_equal(
        network.encoder[0].backward.kernel[...], found["encoder"][0]["backward"]["kernel"]
    )
    wide = AttentionClassifier(60, embedding_features=8, hidden_features=6, rngs=nnx.Rngs(1))
    with pytest.raises(InputError, match=r"config\.init_from"):
        start_from(folder, wide)
