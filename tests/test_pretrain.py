"""pretrain.py and pretrained.py: a language model's run leaves a folder that classifiers start from."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax import digests, pretrain, pretrained, sources, train
from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.errors import InputError
from bahdanau_jax.recorder import Recorder
from bahdanau_jax.text import START, Vocabulary
from experiments import imdb_language_model, imdb_tiny

VOCAB = 60


def small_config():
    config = imdb_language_model.get_config()
    config.data.source = "made_up"
    config.data.train_size, config.data.validation_size, config.data.test_size = 60, 20, 30
    config.vocab_size = VOCAB
    config.max_length, config.bucket_lengths = 20, (20,)
    config.model.embedding_features = config.model.hidden_features = 8
    config.model.candidates = 16
    config.batch_size, config.epochs = 64, 2
    config.checkpoint.every_steps = config.log_every_steps = 3
    return config


def small_classifier(**sizes):
    sizes = dict(embedding_features=8, hidden_features=8, num_layers=1, attention_units=4) | sizes
    return AttentionClassifier(VOCAB, rngs=nnx.Rngs(7), **sizes)


# As in test_checkpoint.py: what fails in TensorStore's threads is told a second time there.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "language_model"
    return folder, pretrain.pretrain(small_config(), folder)


def arrays(folder, step):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder / "checkpoints" / str(step) / "state")


def test_a_run_leaves_its_folder_and_is_not_trained_twice(finished):
    folder, result = finished
    assert {"config.json", "vocabulary.json", "data.json", "metrics.jsonl"} <= {
        path.name for path in folder.iterdir()
    }
    assert json.loads((folder / "result.json").read_text())["steps"] == result["steps"]
    assert pretrain.pretrain(small_config(), folder) == result
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < losses[0]
    assert [line["n"] for line in lines if line["split"] == "validation"][0] > 0


def test_a_killed_run_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch):
    folder, result = finished
    step = Recorder.step

    def die(self, number, **figures):
        if number > 6:
            raise KeyboardInterrupt
        step(self, number, **figures)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "step", die)
        with pytest.raises(KeyboardInterrupt):
            pretrain.pretrain(small_config(), tmp_path / "run")
    assert pretrain.pretrain(small_config(), tmp_path / "run")["splits"] == result["splits"]
    ours, theirs = (arrays(run, result["steps"]) for run in (tmp_path / "run", folder))
    assert jax.tree.map(digests.of_array, ours) == jax.tree.map(digests.of_array, theirs)


def test_it_reads_the_unlabelled_texts_and_never_validation_or_test(tmp_path, monkeypatch):
    config = small_config()
    dataset = sources.make_up(train_size=60, validation_size=20, test_size=30, seed=0)
    seen = []

    def remember(cls, texts, **options):
        seen.extend(texts)
        raise InputError("enough")

    monkeypatch.setattr(Vocabulary, "build", classmethod(remember))
    with pytest.raises(InputError, match="enough"):
        pretrain.pretrain(config, tmp_path / "run")
    assert seen == [*dataset.train.texts, *dataset.read_unlabelled()] and len(seen) == 180


@pytest.mark.parametrize("length", [1, 4, 7, 100])
def test_rows_are_the_whole_stream_in_order(length):
    texts = [np.array([START, *range(4, 4 + n)], np.int32) for n in (3, 1, 8)]
    rows = pretrain.cut_stream(texts, length)
    assert np.concatenate(rows).tolist() == np.concatenate(texts).tolist()
    assert all(len(row) == length for row in rows[:-1]) and 0 < len(rows[-1]) <= length


def test_a_classifier_starts_with_exact_copies_and_the_rest_of_it_stays(finished):
    folder, result = finished
    model, fresh = small_classifier(), small_classifier()
    assert pretrained.start_from(folder, model) == result["steps"]
    saved = arrays(folder, result["steps"])["0"]
    found, before = (nnx.to_pure_dict(nnx.state(x, nnx.Param)) for x in (model, fresh))
    np.testing.assert_array_equal(found["embedding"]["embedding"], saved["embedding"]["embedding"])
    for direction in ("forward", "backward"):
        for name, value in found["encoder"][0][direction].items():
            np.testing.assert_array_equal(value, saved["encoder"]["0"][direction][name])
    for part in ("attention", "hidden", "output"):
        jax.tree.map(np.testing.assert_array_equal, found[part], before[part])


@pytest.mark.parametrize(
    ("sizes", "field"),
    [(dict(embedding_features=4), "embedding"), (dict(hidden_features=4), "bias")],
)
def test_a_model_of_other_sizes_is_refused_in_one_line(finished, sizes, field):
    model = small_classifier(**sizes)
    with pytest.raises(InputError, match=rf"config.init_from: .*{field} has shape") as raised:
        pretrained.start_from(finished[0], model)
    assert "\n" not in str(raised.value)


def test_a_folder_without_what_is_needed_is_refused(finished, tmp_path):
    with pytest.raises(InputError, match="holds no vocabulary.json"):
        pretrained.read_vocabulary(tmp_path, VOCAB, True)
    with pytest.raises(InputError, match="holds no complete checkpoint"):
        pretrained.start_from(tmp_path, small_classifier())
    with pytest.raises(InputError, match="config.vocab_size is 61, .* has 60 ids"):
        pretrained.read_vocabulary(finished[0], VOCAB + 1, True)
    with pytest.raises(InputError, match="config.marks is False, and True in"):
        pretrained.read_vocabulary(finished[0], VOCAB, False)


def test_a_damaged_checkpoint_is_refused(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("22/state/**/d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot restore"):
        pretrained.start_from(tmp_path / "run", small_classifier())


@pytest.mark.parametrize("members", [1, 2])
def test_a_run_starts_from_the_folder_with_its_vocabulary(finished, tmp_path, members):
    folder, _ = finished
    config = imdb_tiny.get_config()
    config.data.train_size, config.data.validation_size, config.data.test_size = 60, 20, 30
    config.init_from, config.vocab_size, config.marks = str(folder), VOCAB, True
    config.model.embedding_features = config.model.hidden_features = 8
    config.model.attention_units, config.model.members = 4, members
    config.batch_size, config.epochs = 30, 1
    config.optimizer.learning_rate = 1e-12  # so that it ends where it began
    train.train_and_evaluate(config, tmp_path / "run")
    ours, theirs = ((run / "vocabulary.json").read_text() for run in (tmp_path / "run", folder))
    assert ours == theirs
    saved = arrays(folder, 22)["0"]
    model = arrays(tmp_path / "run", 2)["0"]
    for member in [model] if members == 1 else model["members"].values():
        found = member["embedding"]["embedding"], member["encoder"]["0"]["forward"]["kernel"]
        kernel = saved["encoder"]["0"]["forward"]["kernel"]
        np.testing.assert_allclose(found[0], saved["embedding"]["embedding"], atol=1e-7)
        np.testing.assert_allclose(found[1], kernel, atol=1e-7)
