"""self_training.py: the texts without labels join train with a teacher's probabilities, and are kept."""

import dataclasses
import json

import numpy as np
import pytest

from bahdanau_jax import objective, self_training, sources, train
from bahdanau_jax.batches import eval_batches
from bahdanau_jax.errors import InputError
from bahdanau_jax.predict import Predictor
from experiments import imdb_tiny


def small_data():
    return sources.make_up(train_size=90, validation_size=20, test_size=30, seed=0)


def test_all_texts_are_there_with_the_teachers_probabilities(tiny_run, tmp_path):
    dataset = small_data()
    both = self_training.with_soft_labels(dataset, tiny_run, tmp_path / "soft_labels.json")
    texts = dataset.read_unlabelled()
    assert list(both.train.texts) == [*dataset.train.texts, *texts] and len(texts) == 180
    assert both.train.labels.dtype == np.float32
    np.testing.assert_array_equal(both.train.labels[:90], dataset.train.labels)
    expected = [p.probabilities[1] for p in Predictor.load(tiny_run)(texts)]
    np.testing.assert_allclose(both.train.labels[90:], expected, rtol=1e-6)
    assert len(set(both.train.ids)) == len(both.train) and both.validation is dataset.validation


def test_labels_are_kept_and_those_of_another_teacher_are_not_taken(tiny_run, tmp_path):
    file = tmp_path / "soft_labels.json"
    first = self_training.with_soft_labels(small_data(), tiny_run, file).train.labels
    kept = json.loads(file.read_text())
    kept["probabilities"] = [0.25] * 180
    file.write_text(json.dumps(kept))
    again = self_training.with_soft_labels(small_data(), tiny_run, file).train.labels
    assert (again[90:] == 0.25).all()
    file.write_text(json.dumps(kept | {"teacher": "elsewhere"}))
    anew = self_training.with_soft_labels(small_data(), tiny_run, file).train.labels
    np.testing.assert_array_equal(anew, first)


def test_copies_of_validation_texts_are_left_out():
    dataset = small_data()
    copy = dataset.validation.texts[3]
    with_copy = dataclasses.replace(dataset, read_unlabelled=lambda: ["one", copy, "two"])
    assert self_training.unlabelled_texts(with_copy, "config.teacher") == ["one", "two"]


def test_what_cannot_be_is_said_in_one_line(tiny_run, tmp_path):
    dataset, file = small_data(), tmp_path / "soft_labels.json"
    with pytest.raises(InputError, match="config.teacher: .* is no run folder"):
        self_training.with_soft_labels(dataset, tmp_path, file)
    three = dataclasses.replace(dataset, label_names=("a", "b", "c"))
    with pytest.raises(InputError, match="is for two classes; made_up has 3"):
        self_training.with_soft_labels(three, tiny_run, file)
    none = dataclasses.replace(dataset, read_unlabelled=list)
    with pytest.raises(InputError, match="config.teacher: made_up has no texts without labels"):
        self_training.with_soft_labels(none, tiny_run, file)


def test_a_soft_label_weighs_the_losses_of_both_classes():
    logits = np.array([[0.7], [-1.2], [0.1]], np.float32)
    soft = np.array([0.2, 0.9, 1.0], np.float32)
    each = objective.per_example_loss(logits, soft)
    ones = objective.per_example_loss(logits, np.ones(3, np.int32))
    zeros = objective.per_example_loss(logits, np.zeros(3, np.int32))
    np.testing.assert_allclose(each, soft * ones + (1 - soft) * zeros, rtol=1e-6)
    metrics = objective.loss_and_metrics(logits, soft, np.ones(3, bool))[1]
    assert (
        metrics.correct == 1
    )  # of 0.2, 0.9 and 1.0 the likelier classes are 0, 1, 1; said are 1, 0, 1


def test_batches_keep_soft_labels_as_they_are():
    soft = np.array([0.25, 0.5], np.float32)
    ids = [np.array([1, 5]), np.array([1])]
    (batch,) = eval_batches(ids, soft, batch_size=3, bucket_lengths=[4])
    assert batch.labels.dtype == np.float32 and sorted(batch.labels.tolist()) == [0, 0.25, 0.5]


@pytest.mark.parametrize("ngrams", [0, 2])
def test_a_student_trains_on_all_of_them_and_goes_on(tiny_run, tmp_path, ngrams):
    config = imdb_tiny.get_config()
    config.data.train_size, config.data.validation_size, config.data.test_size = 90, 20, 30
    config.model.embedding_features = config.model.hidden_features = 4
    config.model.attention_units = 4
    config.model.ngrams, config.model.ngram_rows = ngrams, 256
    config.bucket_lengths = (64,)
    config.batch_size, config.epochs = 16, 1
    config.teacher, config.unlabelled = str(tiny_run), ngrams > 0
    result = train.train_and_evaluate(config, tmp_path / "run")
    assert result["splits"]["train"]["n"] == 90 and result["steps"] == 17  # of 270 in batches of 16
    log = (tmp_path / "run" / "train.log").read_text()
    assert ("counted in 180 texts without labels too" in log) == (ngrams > 0)
    assert train.train_and_evaluate(config, tmp_path / "run") == result
