"""A language model run: learns; resumes to the same bits; a classifier starts from it, or reads its states."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax import AttentionClassifier
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Predictor
from bahdanau_jax.models.fixed import Fixed
from bahdanau_jax.models.language_model import LanguageModel
from bahdanau_jax.models.language_model_states import LanguageModelStates
from bahdanau_jax.recipes.warm_start import read_language_model, start_from
from bahdanau_jax.runs.config import default_config
from bahdanau_jax.runs.language_model_config import LanguageModelConfig
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.runs.predictions import read_predictions, read_reviews
from bahdanau_jax.runs.preemption import Stopped, StopSignals
from bahdanau_jax.runs.restore_model import restore_part
from bahdanau_jax.token_ids import FIRST_WORD, UNKNOWN
from bahdanau_jax.training.language_model import train_language_model
from bahdanau_jax.training.train import train_and_evaluate
from experiments import imdb_tiny


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
def test_a_stopped_run_resumes_to_the_same_bits(run, tmp_path, monkeypatch, capsys):
    folder, result = run
    asked = iter([None] * 4 + ["SIGTERM"])
    with monkeypatch.context() as patch:
        patch.setattr(StopSignals, "asked_after_step", lambda self: next(asked))
        with pytest.raises(Stopped, match="after step 5"):
            train_language_model(tiny(), tmp_path / "run")
    (tmp_path / "run/checkpoints/9.orbax-checkpoint-tmp").mkdir()
    again = train_language_model(tiny(), tmp_path / "run")
    assert "warning: the checkpoint of step 9 was half-written" in capsys.readouterr().out
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


def states_of(vocab_size=60, embedding_features=6, hidden_features=6):
    return LanguageModelStates(
        vocab_size,
        embedding_features=embedding_features,
        hidden_features=hidden_features,
        rngs=nnx.Rngs(2),
    )


@pytest.mark.slow
def test_states_of_another_vocabulary_read_the_vector_of_the_same_word(run):
    folder, _ = run
    known = Vocabulary.load(folder / "vocabulary.json")
    words = ["neverheard", *known.words[10:3:-1]]
    states = states_of(vocab_size=20)
    read_language_model(folder, states, Vocabulary(words, tokenizer="marks"))
    _, found = arrays(folder)
    table = np.asarray(states.embedding.embedding[...])
    theirs = np.asarray(found["embedding"]["embedding"])
    np.testing.assert_array_equal(table[:FIRST_WORD], theirs[:FIRST_WORD])
    np.testing.assert_array_equal(table[FIRST_WORD], theirs[UNKNOWN])
    for i, word in enumerate(words[1:]):
        at = FIRST_WORD + known.words.index(word)
        np.testing.assert_array_equal(table[FIRST_WORD + 1 + i], theirs[at])
    np.testing.assert_array_equal(table[FIRST_WORD + len(words) :], theirs[[UNKNOWN] * 8])
    np.testing.assert_array_equal(
        states.encoder.backward.kernel[...], found["encoder"][0]["backward"]["kernel"]
    )


@pytest.mark.slow
def test_what_is_no_finished_language_model_of_these_sizes_is_refused(run, tmp_path):
    folder, _ = run
    known = Vocabulary.load(folder / "vocabulary.json")

    def refused(folder, states, vocabulary=known):
        with pytest.raises(InputError, match=r"^config\.language_model: ") as raised:
            read_language_model(folder, states, vocabulary)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "holds no language model" in refused(tmp_path, states_of())
    assert "bias has shape (24,)" in refused(folder, states_of(hidden_features=5))
    assert "embedding has shape (60, 6)" in refused(folder, states_of(embedding_features=5))
    assert "expected the same" in refused(folder, states_of(), Vocabulary(known.words))
    assert "the classifier's vocabulary has 60 ids; expected at most 50" in refused(
        folder, states_of(vocab_size=50)
    )
    shutil.copytree(folder, tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps(config | {"vocab_size": 59}))
    assert "its vocabulary has 60 ids; expected at most 59" in refused(
        tmp_path / "run", states_of()
    )
    (tmp_path / "run/result.json").unlink()
    assert "has not finished" in refused(tmp_path / "run", states_of())
    network = AttentionClassifier(
        60, embedding_features=6, hidden_features=6, num_layers=1, rngs=nnx.Rngs(1)
    )
    with pytest.raises(InputError, match=r"config\.init_from: .* has not finished"):
        start_from(tmp_path / "run", network)


def classifier_config(folder):
    config = imdb_tiny.get_config()
    config.data.train_size, config.data.validation_size, config.data.test_size = 90, 20, 30
    config.language_model, config.vocab_size, config.tokenizer.name = str(folder), 60, "marks"
    config.model.embedding_features = config.model.hidden_features = 4
    config.model.attention_units, config.model.num_layers = 4, 1
    config.model.language_model_features = config.model.language_model_embedding_features = 6
    config.bucket_lengths, config.batch_size, config.epochs = (64,), 16, 2
    config.checkpoint.every_steps, config.log_every_steps = 4, 3
    return config


@pytest.mark.slow
def test_a_classifier_reads_its_states_resumes_and_leaves_them(run, tmp_path, monkeypatch):
    folder, _ = run
    whole = train_and_evaluate(classifier_config(folder), tmp_path / "whole")
    asked = iter([None] * 5 + ["SIGTERM"])
    with monkeypatch.context() as patch:
        patch.setattr(StopSignals, "asked_after_step", lambda self: next(asked))
        with pytest.raises(Stopped, match="after step 6"):
            train_and_evaluate(classifier_config(folder), tmp_path / "stopped")
    train_and_evaluate(classifier_config(folder), tmp_path / "stopped")
    states = []
    for name in ("whole", "stopped"):
        predictor = Predictor.load(tmp_path / name)
        assert predictor.step == whole["steps"]
        model = nnx.merge(predictor.graphdef, predictor.state)
        states.append(nnx.to_pure_dict(nnx.state(model, (nnx.Param, Fixed))))
    jax.tree.map(np.testing.assert_array_equal, *states)
    first, second = ((tmp_path / x / "predictions.jsonl").read_text() for x in ("whole", "stopped"))
    assert first == second
    _, found = arrays(folder)
    theirs = states[0]["language_model"]
    np.testing.assert_array_equal(theirs["embedding"]["embedding"], found["embedding"]["embedding"])
    jax.tree.map(np.testing.assert_array_equal, theirs["encoder"], found["encoder"][0])
    vocabulary = (tmp_path / "whole/vocabulary.json").read_text()
    assert vocabulary == (folder / "vocabulary.json").read_text()
    # What predicts agrees with what was evaluated in training.
    predictions, texts = read_predictions(tmp_path / "whole"), read_reviews(tmp_path / "whole")
    assert set(predictions.ids) == set(texts)
    predictor.temperature = 1.0
    found = [x.probabilities for x in predictor([texts[i] for i in predictions.ids])]
    np.testing.assert_allclose(found, predictions.probabilities, atol=1e-5)


def test_the_folder_and_the_size_of_its_states_come_together():
    config = classifier_config("")
    with pytest.raises(InputError, match=r"config\.language_model is '' and .* 6; expected both"):
        parse_config(config)
    config = classifier_config("runs/some")
    config.model.language_model_features = 0
    with pytest.raises(InputError, match=r"is 'runs/some' and .* 0; expected both"):
        parse_config(config)


@pytest.mark.slow
def test_a_classifier_that_reads_no_states_is_refused(run, tmp_path):
    config = classifier_config(run[0])
    config.model.target = f"{__name__}:without_states"
    with pytest.raises(InputError, match=r"config\.language_model: .* has no language_model"):
        train_and_evaluate(config, tmp_path / "run")


def without_states(vocab_size, num_classes, *, rngs):
    return AttentionClassifier(vocab_size, num_classes, hidden_features=4, rngs=rngs)
