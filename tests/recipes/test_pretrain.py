"""A run of word vectors leaves a folder that classifiers start from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.data.synthetic import make_up
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Predictor, read_config
from bahdanau_jax.models.build import build_classifier
from bahdanau_jax.models.classifier import AttentionClassifier
from bahdanau_jax.recipes import pretrain, warm_start
from bahdanau_jax.recipes.word_vectors import SkipGram
from bahdanau_jax.runs.config import Tokenizer
from bahdanau_jax.runs.preemption import Stopped
from bahdanau_jax.training import train
from experiments import imdb_tiny, imdb_vectors

pytestmark = pytest.mark.slow  # trains, or compiles for long

VOCAB, FEATURES = 60, 8


def small_config():
    config = imdb_vectors.get_config()
    config.data.source, config.data.validation = "made_up", "random"
    config.data.train_size, config.data.validation_size, config.data.test_size = 60, 20, 30
    config.vocab_size, config.model.embedding_features, config.epochs = VOCAB, FEATURES, 2
    config.model.topic_features = 3
    return config


def tiny_config(folder):
    config = imdb_tiny.get_config()
    config.data.train_size, config.data.validation_size, config.data.test_size = 60, 20, 30
    config.init_from, config.vocab_size, config.tokenizer.name = str(folder), VOCAB, "marks"
    config.model.embedding_features = config.model.hidden_features = FEATURES
    config.model.attention_units = 4
    config.batch_size, config.epochs = 30, 1
    config.optimizer.learning_rate = 1e-12  # so that the weights hardly change
    return config


def small_classifier(**sizes):
    sizes = dict(embedding_features=FEATURES, hidden_features=8, num_layers=1) | sizes
    return AttentionClassifier(VOCAB, attention_units=4, rngs=nnx.Rngs(7), **sizes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "vectors"
    return folder, pretrain.pretrain(small_config(), folder)


def test_a_run_leaves_its_folder_and_does_not_run_twice(finished):
    folder, result = finished
    assert {"config.json", "vocabulary.json", "data.json", "vectors.npy", "result.json"} == {
        path.name for path in folder.iterdir() if not path.name.startswith(".")
    }
    assert json.loads((folder / "result.json").read_text())["words"] == result["words"] > 0
    assert pretrain.pretrain(small_config(), folder) == result
    assert result["splits"]["validation"]["n"] == 20


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_a_stopped_run_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch, capsys, epochs):
    folder, result = finished
    train_epoch = SkipGram.train_epoch

    def stop(self, epoch):
        if epoch == epochs:
            raise Stopped("stopped by SIGTERM")
        train_epoch(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(SkipGram, "train_epoch", stop)
        if epochs == 2:  # after the last one
            patch.setattr(pretrain, "topic_vectors", lambda *_, **__: stop(None, 2))
        with pytest.raises(Stopped, match="SIGTERM"):
            pretrain.pretrain(small_config(), tmp_path / "run")
    trained = []
    monkeypatch.setattr(
        SkipGram, "train_epoch", lambda *args: [trained.append(args[1]), train_epoch(*args)]
    )
    again = pretrain.pretrain(small_config(), tmp_path / "run")
    assert trained == [0, 1][epochs:]
    assert ("resumed from the checkpoint of epoch" in capsys.readouterr().out) == (epochs > 0)
    assert again["vectors_sha256"] == result["vectors_sha256"]
    assert (tmp_path / "run/vectors.npy").read_bytes() == (folder / "vectors.npy").read_bytes()
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_damaged_checkpoint_is_set_aside_and_other_data_refused(
    finished, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "topic_vectors", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain.pretrain(small_config(), tmp_path / "run")
    data = json.loads((tmp_path / "run/data.json").read_text())
    other = data | {"texts": {"number": 1, "sha256": "0"}}
    (tmp_path / "run/data.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="texts is not what this run began with"):
        pretrain.pretrain(small_config(), tmp_path / "run")
    (tmp_path / "run/data.json").write_text(json.dumps(data))
    file = tmp_path / "run/checkpoints/2/progress/metadata"
    progress = json.loads(file.read_text())
    file.write_text(json.dumps(progress | {"step": 3}))
    result = pretrain.pretrain(small_config(), tmp_path / "run")
    assert "warning: " in (said := capsys.readouterr().out) and "going on from step 1" in said
    assert result["vectors_sha256"] == finished[1]["vectors_sha256"]


@pytest.mark.parametrize("unlabelled", [True, False])
def test_it_reads_neither_validation_nor_test(tmp_path, monkeypatch, unlabelled):
    config = small_config()
    config.unlabelled = unlabelled
    dataset = make_up(train_size=60, validation_size=20, test_size=30, seed=0)
    seen = []

    def remember(cls, texts, **options):
        seen.extend(texts)
        raise InputError("enough")

    monkeypatch.setattr(Vocabulary, "build", classmethod(remember))
    with pytest.raises(InputError, match="enough"):
        pretrain.pretrain(config, tmp_path / "run")
    assert seen == [*dataset.train.texts, *(dataset.read_unlabelled() if unlabelled else [])]
    assert len(seen) == (180 if unlabelled else 60)


def test_a_classifier_starts_with_the_vectors_and_keeps_its_other_weights(finished):
    folder, _ = finished
    model, fresh = small_classifier(), small_classifier()
    assert warm_start.start_from(folder, model) == 0
    found, before = (nnx.to_pure_dict(nnx.state(x, nnx.Param)) for x in (model, fresh))
    vectors = np.load(folder / "vectors.npy")
    np.testing.assert_array_equal(found.pop("embedding")["embedding"], vectors)
    before.pop("embedding")
    for name in before:
        assert str(found[name]) == str(before[name])


def test_a_run_that_does_not_fit_is_refused(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(
        InputError, match="config.init_from: .*has 2,048 bytes; expected 1,088"
    ) as raised:
        warm_start.start_from(folder, small_classifier(embedding_features=4))
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="holds no vocabulary.json"):
        warm_start.read_vocabulary(tmp_path, VOCAB, Tokenizer())
    with pytest.raises(InputError, match="holds no complete checkpoint"):
        warm_start.start_from(tmp_path, small_classifier())
    (tmp_path / "config.json").write_text('{"method": "blend"}')
    with pytest.raises(InputError, match="init_from: .* holds the result of 'blend'; expected"):
        warm_start.start_from(tmp_path, small_classifier())
    with pytest.raises(InputError, match="config.init_from: Linear cannot start from a run"):
        warm_start.start_from(folder, nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match="config.vocab_size is 59, .* has 60 ids"):
        warm_start.read_vocabulary(folder, VOCAB - 1, Tokenizer(name="marks"))
    with pytest.raises(
        InputError, match="config.tokenizer is .*words.*, and .*marks.* in config.init_from"
    ):
        warm_start.read_vocabulary(folder, VOCAB, Tokenizer())


@pytest.mark.parametrize("at", [0, 20, 128, 2_000])
def test_damaged_vectors_are_refused(finished, tmp_path, at):
    shutil.copytree(finished[0], tmp_path / "run")
    damaged = bytearray((tmp_path / "run/vectors.npy").read_bytes())
    damaged[at] ^= 0x10
    (tmp_path / "run/vectors.npy").write_bytes(damaged)
    with pytest.raises(InputError, match=r"vectors\.npy (is damaged|holds)"):
        warm_start.start_from(tmp_path / "run", small_classifier())


def test_a_run_starts_from_the_vectors_and_another_from_that_run(finished, tmp_path):
    folder, _ = finished
    first = train.train_and_evaluate(tiny_config(folder), tmp_path / "first")
    kept, theirs = ((run / "vocabulary.json").read_text() for run in (tmp_path / "first", folder))
    assert kept == theirs
    model = small_classifier()
    assert warm_start.start_from(tmp_path / "first", model) == first["steps"]
    vectors = np.load(folder / "vectors.npy")
    np.testing.assert_allclose(model.embedding.embedding[...], vectors, atol=1e-7)
    with pytest.raises(InputError, match=r"config.init_from: .*bias has shape"):
        warm_start.start_from(tmp_path / "first", small_classifier(hidden_features=4))


def test_a_run_starts_from_one_with_n_grams():
    folder = Path(__file__).parent.parent / "old_runs/0.2-ngrams/run"
    config, predictor = read_config(folder), Predictor.load(folder)
    fields = config.model.model_dump() | {"ngrams": 0}
    model = build_classifier(fields, config.vocab_size, 2, rngs=nnx.Rngs(7))
    assert warm_start.start_from(folder, model) == predictor.step
    theirs = nnx.to_pure_dict(predictor.state)["network"]
    np.testing.assert_array_equal(model.embedding.embedding[...], theirs["embedding"]["embedding"])
