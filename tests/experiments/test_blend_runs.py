"""experiments.blend: the folder is like a run's, predicts as it was measured, and faults are one line."""

import json
import shutil

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bahdanau_jax.data.dataset import Examples
from bahdanau_jax.data.load import load_dataset
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.blend_predictor import BlendPredictor, load_predictor, runs_of
from bahdanau_jax.evaluation.predictor import Predictor
from bahdanau_jax.runs.predictions import read_predictions, write_predictions
from experiments import blend, int16, predict, report


@pytest.fixture
def runs(tiny_run, tmp_path):
    """Two runs. The second one's predictions stand in another order, and are less sure on validation."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        shutil.copytree(tiny_run, folder)
    file = folders[1] / "predictions.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for i, record in enumerate(records):
        if record["split"] == "validation":
            p = 0.5 + 0.2 * np.sin(3 * i) + (0.1 if record["label"] else -0.1)
            record["probabilities"] = [1 - p, p]
    file.write_text("".join(json.dumps(record) + "\n" for record in reversed(records)))
    return folders


def make(runs, workdir):
    return blend.main(["blend", f"--runs={','.join(map(str, runs))}", f"--workdir={workdir}"])


@pytest.mark.slow
def test_the_folder_predicts_as_it_was_measured(runs, tmp_path):
    folder = tmp_path / "blend"
    assert make(runs, folder) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["splits"]["test"]["n"] == 30 and len(result["scales"]) == 2
    assert result["compared"].keys() == {str(run) for run in runs}
    config = json.loads((runs[0] / "config.json").read_text())
    test = load_dataset(config["data"], seed=config["seed"]).read_test()
    measured = read_predictions(folder, "test")
    assert measured.ids == list(test.ids)
    predictor = load_predictor(folder)
    assert isinstance(predictor, BlendPredictor) and predictor([]) == []
    predictions = predictor(test.texts)
    p = np.stack([x.probabilities for x in predictions])
    np.testing.assert_allclose(p, measured.probabilities, atol=2e-6)
    assert result["splits"]["test"]["accuracy"] == np.mean(
        [x.label == ("neg", "pos")[y] for x, y in zip(predictions, test.labels, strict=True)]
    )
    # The blend is another answer than that of its first run, whose words it shows.
    alone = Predictor.load(runs[0])(test.texts)
    assert (
        max(abs(a.probability - b.probability) for a, b in zip(alone, predictions, strict=True))
        > 1e-3
    )
    assert [x.words for x in alone] == [x.words for x in predictions]
    (tmp_path / "texts.txt").write_text("".join(text + "\n" for text in test.texts))
    output = tmp_path / "found.jsonl"
    given = [f"--workdir={folder}", f"--input={tmp_path}/texts.txt", f"--output={output}"]
    assert predict.main(["predict", *given]) == 0
    written = [json.loads(line)["probability"] for line in output.read_text().splitlines()]
    np.testing.assert_allclose(written, p.max(axis=1), atol=2e-6)


def test_the_scales_are_those_of_a_logistic_regression_on_validation_alone(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=300)
    logits = (2 * labels - 1) * 0.7 + rng.normal(size=(2, 300)) * [[1.0], [2.0]]
    ids = [f"text/{i}" for i in range(300)]
    parts = {"validation": slice(0, 200), "test": slice(200, 300)}
    for name, z in zip("ab", logits, strict=True):
        (tmp_path / name).mkdir()
        examples = {k: Examples(ids[rows], labels[rows], ids[rows]) for k, rows in parts.items()}
        found = {k: (examples[k], z[rows, None].astype(np.float32)) for k, rows in parts.items()}
        write_predictions(tmp_path / name / "predictions.jsonl", found)
    figures, found = blend.blend([tmp_path / "a", tmp_path / "b"])
    features, known = logits[:, :200].T, labels[:200]
    doubt = 1 / (np.bincount(known)[known] + 2)  # see fit_scales
    model = LogisticRegression(C=1e9, fit_intercept=False, solver="newton-cholesky")
    model.fit(
        np.concatenate([features, features]),
        np.concatenate([known, 1 - known]),
        sample_weight=np.concatenate([1 - doubt, doubt]),
    )
    assert (model.coef_ > 0.1).all()
    np.testing.assert_allclose(figures["scales"], model.coef_[0], rtol=1e-3)
    blended = found["test"][1]
    want = figures["scales"] @ logits[:, 200:]
    np.testing.assert_allclose(blended[:, 1] - blended[:, 0], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace('"test', '"tset', 1), "have different"),
        (
            lambda text: text.replace(
                '"split": "validation", "id": "', '"split": "validation", "id": "x', 1
            ),
            "have different validation texts (20 and 20); expected the same",
        ),
        (lambda text: text.replace('"label": 0', '"label": 1', 1), "have different labels"),
        (lambda text: "", "holds no prediction of the split"),
    ],
)
def test_runs_of_other_data_are_refused_before_the_folder_is_made(
    runs, tmp_path, capsys, change, message
):
    file = runs[1] / "predictions.jsonl"
    file.write_text(change(file.read_text()))
    assert make(runs, tmp_path / "blend") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "blend").exists()


@pytest.mark.parametrize(
    "file, change, message",
    [
        ("result.json", lambda x: x | {"label_names": ["bad", "good"]}, "have the classes"),
        (
            "data.json",
            lambda x: x | {"validation": {"sha256": "0"}},
            "different texts under the same",
        ),
        ("data.json", lambda x: {}, "damaged: expected the digest of validation"),
        ("result.json", None, "holds no finished run: it has no result.json"),
        ("config.json", None, "is not a run folder: it holds no config.json"),
    ],
)
def test_other_classes_or_texts_are_noticed(runs, tmp_path, capsys, file, change, message):
    path = runs[1] / file
    found = json.loads(path.read_text())
    path.unlink()
    if change:
        path.write_text(json.dumps(change(found)))
    assert make(runs, tmp_path / "blend") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "blend").exists()


@pytest.mark.slow
def test_other_test_texts_are_noticed_by_blend_and_report(runs, tmp_path, capsys):
    path = runs[1] / "reviews.jsonl"
    path.write_text(path.read_text().replace('"text": "', '"text": "not ', 1))
    assert make(runs, tmp_path / "blend") == 2
    assert report.main(["report", f"--workdir={runs[0]},{runs[1]}"]) == 2
    assert capsys.readouterr().err.count("have different texts under the same ids") == 2


def test_a_blend_is_no_run(runs, tmp_path, capsys):
    folder = tmp_path / "blend"
    assert make(runs, folder) == 0
    assert make([runs[0], folder], tmp_path / "again") == 2
    assert "holds a blend; expected the folder of a run" in capsys.readouterr().err
    assert make(runs, runs[0]) == 2
    message = capsys.readouterr().err
    assert (
        "holds a training run; expected an empty folder or one of the result of 'blend'" in message
    )


def test_the_config_of_a_run_that_never_began_makes_way(runs, tmp_path):
    folder = tmp_path / "blend"
    folder.mkdir()
    shutil.copy(runs[0] / "config.json", folder)
    assert make(runs, folder) == 0 and runs_of(folder) == runs


def test_runs_move_together_with_their_blend_and_another_run_is_noticed(runs, tmp_path):
    folder, moved = tmp_path / "blend", tmp_path / "moved"
    assert make(runs, folder) == 0
    moved.mkdir()
    for path in (*runs, folder):
        path.rename(moved / path.name)
    (before,) = load_predictor(moved / "blend")(["a dull film"])
    assert np.isfinite(before.probabilities).all()
    with open(moved / "two" / "predictions.jsonl", "a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="two holds other predictions than when it was blended"):
        load_predictor(moved / "blend")


def test_one_run_is_no_blend(runs, tmp_path, capsys):
    for given in (runs[:1], [runs[0], runs[0]]):
        assert make(given, tmp_path / "blend") == 2
        assert "expected two or more different folders" in capsys.readouterr().err


def test_a_damaged_folder_is_named(runs, tmp_path):
    folder = tmp_path / "blend"
    assert make(runs, folder) == 0 and runs_of(folder) == runs and runs_of(runs[0]) == []
    shutil.rmtree(runs[1])
    with pytest.raises(InputError, match=str(runs[1])):
        load_predictor(folder)
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match="expected scales and predictions_sha256 of the blend's 2"):
        load_predictor(folder)


def test_a_command_that_needs_weights_says_that_a_blend_has_none(runs, tmp_path, capsys):
    folder = tmp_path / "blend"
    assert make(runs, folder) == 0
    for other in (report, int16):
        assert other.main([other.__name__, f"--workdir={folder}"]) == 2
        assert (
            "holds the result of 'blend'; expected the folder of a run" in capsys.readouterr().err
        )
