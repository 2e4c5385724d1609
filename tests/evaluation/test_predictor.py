"""A finished run's folder is all that prediction needs, and gives what the run itself measured."""

import json
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bahdanau_jax import InputError, Predictor, split_words
from bahdanau_jax.data import synthetic
from bahdanau_jax.evaluation import calibration

pytestmark = pytest.mark.slow  # trains, or compiles for long


@pytest.fixture(scope="module")
def dataset():
    return synthetic.make_up(train_size=90, validation_size=20, test_size=30, seed=0)


@pytest.fixture(scope="module")
def workdir(tiny_run):
    return tiny_run


@pytest.fixture(scope="module")
def predictor(workdir):
    return Predictor.load(workdir)


def same(got, want):
    assert got.label == want.label and got.words == want.words
    np.testing.assert_allclose(got.probabilities, want.probabilities, atol=1e-5)
    np.testing.assert_allclose(got.weights, want.weights, atol=1e-5)
    np.testing.assert_array_equal(got.known, want.known)


def test_predictions_are_those_of_the_run(workdir, predictor, dataset):
    lines = [json.loads(x) for x in (workdir / "predictions.jsonl").read_text().splitlines()]
    want = {line["id"]: line for line in lines if line["split"] == "test"}
    test = dataset.read_test()
    predictions = predictor(test.texts)
    assert len(predictions) == len(want) == 30
    for name, label, got in zip(test.ids, test.labels, predictions, strict=True):
        assert want[name]["label"] == label
        raw = np.array([want[name]["probabilities"]])
        scaled = calibration.scale(raw, predictor.temperature)[0]
        np.testing.assert_allclose(got.probabilities, scaled, atol=1e-5)
        best = int(got.probabilities.argmax())
        assert got.label == ("neg", "pos")[best] and got.probability == got.probabilities[best]


def test_neither_order_nor_company_matters(predictor, dataset):
    texts = [
        *dataset.train.texts,
        "",
        "a fine film",
        *dataset.validation.texts,
    ] * 3  # above two batches
    together = predictor(texts)
    backwards = predictor(texts[::-1])[::-1]
    assert len(texts) > 128
    for got, want in zip(backwards, together, strict=True):
        same(got, want)
    for i in (0, 7, 90, 91):
        same(predictor([texts[i]])[0], together[i])


def test_words_and_weights_align(predictor, dataset):
    texts = [*dataset.validation.texts, "Zyzzyva, IT'S <br />well-made!", "word " * 200]
    for text, got in zip(texts, predictor(texts), strict=True):
        assert got.words == ["<start>", *split_words(text)][-64:]
        assert got.weights.dtype == np.float32 and got.known.dtype == bool
        assert len(got.weights) == len(got.known) == len(got.words)
        assert got.weights.sum() == pytest.approx(1, abs=1e-5) and (got.weights > 0).all()
        vocabulary = {"<start>", *predictor.vocabulary.words}
        assert got.known.tolist() == [word in vocabulary for word in got.words]
    assert "zyzzyva" not in predictor.vocabulary.words


def test_an_empty_text(predictor):
    for text in ("", " .,; "):
        [got] = predictor([text])
        assert got.words == ["<start>"] and got.weights.tolist() == [1.0]
    assert predictor([]) == []


def test_a_text_is_no_list_of_texts(predictor):
    with pytest.raises(InputError, match="pass \\[text\\]"):
        predictor("a fine film")
    table = type("DataFrame", (list,), {"columns": ["text"]})(["text"])  # gives names of columns
    for found, kind in (
        (None, "NoneType"),
        (float("nan"), "float"),
        ({"a": "b"}, "dict"),
        (table, "DataFrame"),
    ):
        with pytest.raises(InputError, match=f"texts: found {kind}; expected a list of texts"):
            predictor(found)
    array = np.array(["fine", None], object)
    with pytest.raises(InputError, match=r"texts\[1\] is None \(NoneType\); expected a text"):
        predictor(array)
    for texts in (("fine",), iter(["fine"]), array[:1], array[:1].astype(str)):
        assert [x.words for x in predictor(texts)] == [["<start>", "fine"]]


def test_few_shapes_are_compiled(workdir, dataset):
    from bahdanau_jax.evaluation import predictor

    forward: Any = predictor._forward
    forward.clear_cache()
    predictor, texts = Predictor.load(workdir), [*dataset.train.texts, "", "short"]
    for n in (1, 2, 3, 17, 40, 92):
        predictor(texts[:n])
        predictor(texts[-n:])
    assert forward._cache_size() <= 6  # 1 and 16 rows of three lengths


def test_loading_changes_nothing(workdir, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    # What a run that is being written leaves for a moment.
    (run / "checkpoints" / "99.orbax-checkpoint-tmp-1").mkdir()
    before = sorted((str(p), p.stat().st_mtime_ns) for p in run.rglob("*"))
    assert Predictor.load(run).step == 6
    assert sorted((str(p), p.stat().st_mtime_ns) for p in run.rglob("*")) == before


def test_a_run_that_has_not_finished_predicts_with_the_names_of_its_classes(workdir, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    (run / "result.json").unlink()
    assert Predictor.load(run)(["fine"])[0].label in ("neg", "pos")


def remove(name):
    def change(run):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()

    return change


def write(name, content):
    return lambda run: (run / name).write_text(content)


def edit(name, **fields):
    def change(run):
        file = run / name
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def empty_arrays(run):
    for file in (run / "checkpoints" / "6" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "is not a run folder: it holds no config.json"),
        (remove("checkpoints"), "holds no complete checkpoint yet"),
        (remove("vocabulary.json"), "vocabulary.json: cannot read"),
        (remove("checkpoints/6/state"), "cannot restore .*checkpoints/6"),
        (empty_arrays, "cannot restore .*checkpoints/6"),
        (write("config.json", '{"model": {'), "config.json is damaged: expected JSON"),
        (write("config.json", "[]"), "config.json is not the config of a classifier"),
        (write("vocabulary.json", "{"), "vocabulary.json: not a vocabulary"),
        (write("data.json", "{"), "data.json is damaged"),
        (
            edit("data.json", **{"data set": {"labels": ["one"]}}),
            "expected the names of two or more",
        ),
        (
            edit("data.json", **{"data set": {"labels": list("abc")}}),
            "has shape .* in the checkpoint",
        ),
        (edit("config.json", bucket_lengths=[64, 16]), "bucket_lengths is .64, 16."),
        (edit("config.json", bucket_lengths=None), "bucket_lengths is None"),
        (edit("config.json", model={"hidden_features": 5}), "has shape .* in the checkpoint"),
        (
            edit("config.json", model={"hidden": 5}),
            "config.model.hidden is not a field; did you mean",
        ),
        (
            edit("config.json", model={"hidden_features": "5"}),
            "hidden_features is '5'; expected an integer",
        ),
        (edit("vocabulary.json", words=list(map(str, range(2000)))), "has 2004 ids"),
    ],
)
def test_a_folder_that_is_no_whole_run_is_refused_in_one_line(workdir, tmp_path, damage, message):
    run = shutil.copytree(workdir, tmp_path / "run")
    damage(run)
    with pytest.raises(InputError, match=message) as caught:
        Predictor.load(run)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        Predictor.load(tmp_path / "none")


def test_the_import_is_light():
    code = (
        "import sys, flax.nnx; from absl import flags; before = set(flags.FLAGS)\n"
        "import bahdanau_jax\n"
        "heavy = ('tensorflow_datasets', 'grain', 'orbax.checkpoint', 'matplotlib', 'tensorboardX')\n"
        "print([name for name in heavy if name in sys.modules], set(flags.FLAGS) - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] set()"


def test_loading_needs_no_parsed_flags(workdir):
    code = (
        "import sys, bahdanau_jax\n"
        "print(bahdanau_jax.Predictor.load(sys.argv[1])(['a fine film'])[0].label)"
    )
    command = [sys.executable, "-c", code, str(workdir), "--not-a-flag"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() in ("neg", "pos")
