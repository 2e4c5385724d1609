"""NB-SVM agrees with scikit-learn's naive Bayes, and its folder is like a run's."""

import json

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import accuracy_score, log_loss
from sklearn.naive_bayes import MultinomialNB

from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.load import load_dataset
from bahdanau_jax.data.tokenizer import split_words
from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.predictions import read_predictions
from experiments import baseline, imdb_tiny


def tiny_data():
    data = imdb_tiny.get_config().data
    data.train_size, data.validation_size, data.test_size = 80, 40, 60
    return data.to_dict()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("baseline") / "run"
    return workdir, baseline.train_and_evaluate(tiny_data(), workdir, ngrams=2, seed=0)


def test_the_ratio_agrees_with_a_calculation_by_hand():
    # Feature 0 is in both positive reviews, feature 1 in one of each class: p = (3, 2), q = (1, 2).
    occurs = csr_array(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    ratio = baseline.log_count_ratio(occurs, np.array([1, 1, 0]), alpha=1.0)
    np.testing.assert_allclose(ratio, np.log([(3 / 5) / (1 / 3), (2 / 5) / (2 / 3)]))


def test_the_ratio_agrees_with_naive_bayes():
    rng = np.random.default_rng(0)
    occurs, labels = rng.random((50, 20)) < 0.3, rng.integers(2, size=50)
    classes = MultinomialNB(alpha=0.5).fit(occurs, labels).feature_log_prob_
    ratio = baseline.log_count_ratio(csr_array(occurs.astype(np.float32)), labels, alpha=0.5)
    np.testing.assert_allclose(ratio, classes[1] - classes[0], rtol=1e-6)


@pytest.mark.slow
def test_the_predictions_agree_with_the_data_and_the_result(finished):
    workdir, result = finished
    assert json.loads((workdir / "result.json").read_text()) == result
    dataset = load_dataset(tiny_data(), seed=0)
    for split, examples in (("validation", dataset.validation), ("test", dataset.read_test())):
        found = read_predictions(workdir, split)
        assert found.ids == list(examples.ids)
        np.testing.assert_array_equal(found.labels, examples.labels)
        got = result["splits"][split]
        p = found.probabilities
        assert got["accuracy"] == pytest.approx(accuracy_score(found.labels, p.argmax(1)))
        assert got["loss"] == pytest.approx(log_loss(found.labels, p), rel=1e-4)
        assert got["interval"][0] <= got["accuracy"] <= got["interval"][1]
    assert result["splits"]["test"]["accuracy"] > 0.9


def test_alpha_and_c_are_best_on_validation(finished):
    _, result = finished
    assert len(result["tried"]) == len(baseline.ALPHAS) * len(baseline.CS)
    best = max(x["accuracy"] for x in result["tried"])
    assert result["splits"]["validation"]["accuracy"] == best
    chosen = [x for x in result["tried"] if (x["alpha"], x["C"]) == (result["alpha"], result["C"])]
    assert chosen[0]["accuracy"] == best


def test_a_finished_baseline_is_shown_and_not_computed_again(finished, capsys, monkeypatch):
    workdir, result = finished
    monkeypatch.setattr(baseline, "load_dataset", None)  # would raise if called
    assert baseline.train_and_evaluate(tiny_data(), workdir, ngrams=2, seed=0) == result
    output = capsys.readouterr().out
    assert "already finished" in output and "parameters" in output and "steps" not in output


def test_longer_n_grams_add_features(finished, tmp_path):
    words = baseline.train_and_evaluate(tiny_data(), tmp_path, ngrams=1, seed=0)
    texts = load_dataset(tiny_data(), seed=0).train.texts
    known = {word for text in texts for word in split_words(text, marks=True)}
    assert words["parameters"] == len(known) + 1 < finished[1]["parameters"]


@pytest.mark.parametrize(
    ("texts", "labels", "names", "expected"),
    [
        (
            ["a b", "c d"],
            [0, 0],
            ("neg", "pos"),
            "expected reviews of all 2 classes in train, found 1",
        ),
        (["a b", "c d"], [0, 1], ("a", "b", "c"), "found 2 of a, b, c"),
        (["", " "], [0, 1], ("neg", "pos"), "have no words"),
        (
            ["a b", float("nan")],
            [0, 1],
            ("neg", "pos"),
            r"texts\[1\] is nan \(float\); expected a text",
        ),
    ],
)
def test_unusable_data_is_refused(tmp_path, monkeypatch, texts, labels, names, expected):
    examples = Examples(texts, np.array(labels, np.int32), ["0", "1"])
    dataset = Dataset("x", names, examples, examples, lambda: examples, "")
    monkeypatch.setattr(baseline, "load_dataset", lambda data, seed: dataset)
    with pytest.raises(InputError, match=expected):
        baseline.train_and_evaluate(tiny_data(), tmp_path / "run", ngrams=2, seed=0)


def test_the_command_line(tmp_path, capsys):
    arguments = ["--config", "experiments/imdb_tiny.py", "--config.data.train_size=80"]
    arguments += ["--ngrams=1", f"--workdir={tmp_path / 'run'}", "--config.data.test_size=60"]
    assert baseline.main(["baseline", *arguments]) == 0
    assert "test: 60 made-up reviews" in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["ngrams"], result["splits"]["train"]["n"]) == (1, 80)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ngram=2"], "unknown flag --ngram; did you mean --ngrams?"),
        (["--ngrams=0"], "--ngrams=0"),
        (["--ngrams=two"], "--ngrams=two"),
        (["--workdir="], "--workdir is empty"),
        (["--config.data.sorce=x"], "data.source"),
        (["--config.data.source=imdb"], "config.data.source is 'imdb'"),
        (["--config=experiments/imbd.py"], "experiments/imdb.py"),
        (["x"], "unexpected argument 'x'"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(arguments, expected, capsys, tmp_path):
    if "--workdir=" not in arguments:
        arguments = [*arguments, f"--workdir={tmp_path / 'run'}"]
    assert baseline.main(["baseline", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and expected in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_folder_of_a_run_is_refused_and_kept(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"seed": 0, "vocab_size": 10}')
    (tmp_path / "metrics.jsonl").touch()
    tiny = ["--config=experiments/imdb_tiny.py", f"--workdir={tmp_path}"]
    assert baseline.main(["baseline", *tiny]) == 2
    expected = "holds a training run; expected an empty folder or one of the result of 'nb-svm'"
    assert expected in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".lock", "config.json", "metrics.jsonl",
    ]  # fmt: skip


def test_missing_data_has_its_own_exit_code(tmp_path, capsys, monkeypatch):
    (tmp_path / "tfds").mkdir()
    arguments = ["--config.data.name=nowhere", f"--config.data.data_dir={tmp_path / 'tfds'}"]
    assert baseline.main(["baseline", *arguments, f"--workdir={tmp_path / 'run'}"]) == 66
    assert "nowhere is not prepared" in capsys.readouterr().err
