"""The exported file gives the run's probabilities, in a process that has nothing but jax and numpy."""

import json
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx

import experiments.export as cli
from bahdanau_jax import InputError, Predictor, sources, weights
from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.export import export_model, stablehlo
from bahdanau_jax.exported import Exported

# Refuses what this project needs besides jax, numpy and what these bring along.
ALONE = """
import importlib.abc, runpy, sys
REFUSED = {"flax", "optax", "orbax", "grain", "absl", "rich", "numba", "sklearn", "ml_collections"}
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Refuse())
file, *texts = sys.argv[1:]
sys.argv = [file, *texts]
sys.path.insert(0, file)
runpy.run_path(file, run_name="__main__")
import bahdanau_jax
import flatbuffers
for module in (bahdanau_jax, flatbuffers):
    assert module.__file__.startswith(file), module.__file__
"""


@pytest.fixture(scope="module")
def file(tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "tiny.pyz"
    export_model(tiny_run, path)
    return path


@pytest.fixture(scope="module")
def texts():
    made_up = sources.make_up(train_size=20, validation_size=1, test_size=1, seed=7).train.texts
    return ["", "Été zyzzyva <b>", "word " * 200, *made_up]


def test_it_gives_what_the_run_gives(tiny_run, file, texts):
    predictor = Predictor.load(tiny_run)
    assert predictor.temperature != 1.0
    for got, want in zip(Exported(str(file))(texts), predictor(texts), strict=True):
        assert got["label"] == want.label
        np.testing.assert_allclose(
            list(got["probabilities"].values()), want.probabilities, atol=1e-5
        )
        np.testing.assert_allclose(got["weights"], want.weights, atol=1e-5)
        known = [a for a, k in zip(got["words"], want.known, strict=True) if k]
        assert known == [b for b, k in zip(want.words, want.known, strict=True) if k]


def test_it_predicts_with_nothing_but_jax_and_numpy(tiny_run, file, texts, tmp_path):
    command = [sys.executable, "-P", "-c", ALONE, str(file), *texts[:3]]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    for got, want in zip(lines, Predictor.load(tiny_run)(texts[:3]), strict=True):
        assert got["probability"] == pytest.approx(want.probability, abs=1e-5)
    command = [sys.executable, str(file)]
    run = subprocess.run(command, input="\nÉté zyzzyva <b>\n", capture_output=True, text=True)
    assert [json.loads(line) for line in run.stdout.splitlines()] == lines[:2]


def test_any_batch_size_and_length(file):
    model = Exported(str(file))
    for shape in ((1, 1), (3, 7), (5, 64)):
        ids = np.random.default_rng(0).integers(1, 50, shape).astype(np.int32)
        p, attention = model.call(model.weights, ids)
        assert p.shape == (shape[0], 2) and attention.shape == shape
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)


def test_more_classes_and_whatever_is_in_the_model():
    sizes = dict(embedding_features=4, hidden_features=3, attention_units=3, head_features=5)
    model = AttentionClassifier(20, 4, **sizes, rngs=nnx.Rngs(0))
    model.eval()
    from jax import export

    call = export.deserialize(stablehlo(model)).call
    ids = np.array([[1, 5, 9, 0]], np.int32)
    logits, attention = model(ids)
    want = np.exp(logits) / np.exp(logits).sum()
    p, found = call(weights.weights_of(model), ids)
    np.testing.assert_allclose(p, want, atol=1e-6)
    np.testing.assert_allclose(found, attention, atol=1e-6)


def make(seed, hidden=3):
    return AttentionClassifier(
        20, embedding_features=4, hidden_features=hidden, rngs=nnx.Rngs(seed)
    )


def test_safetensors_come_back(tmp_path):
    first, second = make(0), make(1)
    weights.save_safetensors(first, tmp_path / "a.safetensors", {"run": "a"})
    weights.load_safetensors(second, tmp_path / "a.safetensors")
    got, want = weights.weights_of(second), weights.weights_of(first)
    assert got.keys() == want.keys() and "encoder.0.forward.kernel" in got
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


def test_safetensors_that_do_not_fit_are_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        weights.load_safetensors(make(0), file)
    file.write_bytes(b"no such thing")
    with pytest.raises(InputError, match="is no SafeTensors file"):
        weights.load_safetensors(make(0), file)
    weights.save_safetensors(make(0), file)
    with pytest.raises(InputError, match=r"attention.key_kernel is \(6, 64\); expected \(8, 64\)"):
        weights.load_safetensors(make(0, hidden=4), file)


@pytest.mark.parametrize("name", ["x.pyz", "x.safetensors"])
def test_the_command_tries_what_it_wrote(tiny_run, tmp_path, capsys, name):
    assert cli.main(["export", f"--workdir={tiny_run}", f"--output={tmp_path}/{name}"]) == 0
    assert "largest difference over 33 texts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=x"], "--output is missing"),
        (["--workdir=x", "--output=a.zip"], "expected a file that ends with .pyz or .safetensors"),
        (["--workdir=no/such/run", "--output=a.pyz"], "no/such/run is no run folder"),
        (["--workdir=x", "--output=a.pyz", "y"], "unexpected argument 'y'"),
    ],
)
def test_what_is_not_right_is_said_in_one_line(capsys, arguments, message):
    assert cli.main(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
