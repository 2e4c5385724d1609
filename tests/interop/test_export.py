"""The exported file gives the run's probabilities, also where only jax and numpy are installed."""

import ast
import json
import os
import re
import subprocess
import threading
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import experiments.export as cli
from bahdanau_jax import InputError, Predictor
from bahdanau_jax.data import synthetic
from bahdanau_jax.interop import safetensors, standalone
from bahdanau_jax.interop.export import export_model, predict_alone, stablehlo
from bahdanau_jax.interop.standalone import Exported
from bahdanau_jax.models.classifier import AttentionClassifier

pytestmark = pytest.mark.slow  # trains, or compiles for long

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Imports the file as a library, predicts stdin, and checks where its modules come from.
AS_A_LIBRARY = """
import sys
file = sys.argv[1]
sys.path.insert(0, file)
from bahdanau_jax.interop.standalone import main
main(file, [])
for name, module in sys.modules.items():
    if name.split(".")[0] in ("bahdanau_jax", "flatbuffers"):
        assert module.__file__.startswith(file), module
"""


def requirements(package: str) -> set[str]:
    """The package and everything that installing it brings along."""
    found, waiting = set(), [package]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            lines = [x for x in metadata.requires(name) or () if "extra ==" not in x]
            waiting += [re.findall(r"^[\w.-]+", line)[0] for line in lines]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of a fresh virtual environment that holds jax and what it requires, as links."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.EnvBuilder(symlinks=True).create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for package in requirements("jax"):
        distribution = metadata.distribution(package)
        names = {Path(str(file)).parts[0] for file in distribution.files or ()} - {".."}
        for name in names:
            if not (site / name).exists():
                (site / name).symlink_to(str(distribution.locate_file(name)))
    assert {"jax", "numpy"} <= {x.name for x in site.iterdir()}
    assert not {"flax", "flatbuffers", "bahdanau_jax"} & {x.name for x in site.iterdir()}
    return folder / "bin/python"


@pytest.fixture(scope="module")
def file(tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "tiny.pyz"
    export_model(tiny_run, path)
    return path


@pytest.fixture(scope="module")
def texts():
    made_up = synthetic.make_up(train_size=20, validation_size=1, test_size=1, seed=7).train.texts
    return ["", "Été zyzzyva <b>", "word " * 200, *made_up]


def test_it_gives_the_probabilities_of_the_run(tiny_run, file, texts):
    predictor = Predictor.load(tiny_run)
    assert predictor.temperature != 1.0
    for got, want in zip(Exported(str(file))(texts), predictor(texts), strict=True):
        assert got["label"] == want.label
        np.testing.assert_allclose(
            list(got["probabilities"].values()), want.probabilities, atol=1e-5
        )
        np.testing.assert_allclose(got["weights"], want.weights, atol=1e-5)
        assert got["words"] == want.words


def test_a_jax_that_is_too_old_is_named_in_one_line(tmp_path, monkeypatch):
    newer = tmp_path / "newer.pyz"
    with zipfile.ZipFile(newer, "w") as parts:
        parts.writestr("about.json", '{"jax": "99.0"}')

    def fail(file):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Failed to deserialize StableHLO")

    monkeypatch.setattr(standalone, "Exported", fail)
    with pytest.raises(
        SystemExit, match=f"newer.pyz was exported with JAX 99.0; .*not {jax.__version__}"
    ):
        standalone.main(str(newer), ["a text"])


def test_it_carries_every_module_of_ours_that_it_imports(file):
    with zipfile.ZipFile(file) as parts:
        names = set(parts.namelist())
        sources = [parts.read(x).decode() for x in names if x.startswith("bahdanau_jax/")]
        sources.append(parts.read("__main__.py").decode())
    imported = {
        node.module
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    ours = {x for x in imported if x.startswith("bahdanau_jax")}
    assert ours and {f"{x.replace('.', '/')}.py" for x in ours} <= names


def clean_environment():
    kept = ("PATH", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


def test_it_runs_where_only_jax_and_numpy_are_installed(python, tiny_run, file, texts, tmp_path):
    run = subprocess.run(
        [python, file, *texts[:3]],
        capture_output=True, text=True, cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    for got, want in zip(lines, Predictor.load(tiny_run)(texts[:3]), strict=True):
        assert got["probability"] == pytest.approx(want.probability, abs=1e-5)


def test_it_answers_each_line_of_stdin_at_once(python, tiny_run, file, tmp_path):
    process = subprocess.Popen(
        [python, "-c", AS_A_LIBRARY, file],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    deadline = threading.Timer(120, process.kill)
    deadline.start()
    try:
        process.stdin.write(BYTE_ORDER_MARK + "the Été\r\n".encode())
        process.stdin.flush()
        first = process.stdout.readline()
        process.stdin.write(b"\nnot UTF-8: \xff\nlast, without a line end")
        process.stdin.close()
        answers = [json.loads(line) for line in [first, *process.stdout]]
        assert process.wait() == 0
    finally:
        deadline.cancel()
        process.kill()
        process.stdout.close()
    texts = ["the Été", "", "not UTF-8: \ufffd", "last, without a line end"]
    for got, want in zip(answers, Predictor.load(tiny_run)(texts), strict=True):
        assert got["probability"] == pytest.approx(want.probability, abs=1e-5)
        assert got["words"] == want.words


def test_a_file_that_needs_this_project_is_refused(tmp_path):
    file = tmp_path / "a.pyz"
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr("__main__.py", "import bahdanau_jax.data.vocabulary\n")
    with pytest.raises(InputError, match="without this project: .*No module named 'bahdanau_jax'"):
        predict_alone(file, ["a"])


def test_any_batch_size_and_length(file):
    model = Exported(str(file))
    for shape in ((1, 1), (3, 7), (5, 64)):
        ids = np.random.default_rng(0).integers(1, 50, shape).astype(np.int32)
        p, attention = model.call(model.weights, ids)
        assert p.shape == (shape[0], 2) and attention.shape == shape
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)


def test_more_than_two_classes():
    sizes = dict(embedding_features=4, hidden_features=3, attention_units=3, head_features=5)
    model = AttentionClassifier(20, 4, **sizes, rngs=nnx.Rngs(0))
    model.eval()
    from jax import export

    call = export.deserialize(stablehlo(model)).call
    ids = np.array([[1, 5, 9, 0]], np.int32)
    logits, attention = model(ids)
    want = np.exp(logits) / np.exp(logits).sum()
    p, found = call(safetensors.weights_of(model), ids)
    np.testing.assert_allclose(p, want, atol=1e-6)
    np.testing.assert_allclose(found, attention, atol=1e-6)


def make(seed, hidden=3):
    return AttentionClassifier(
        20, embedding_features=4, hidden_features=hidden, rngs=nnx.Rngs(seed)
    )


def test_safetensors_round_trip(tmp_path):
    first, second = make(0), make(1)
    safetensors.save_safetensors(first, tmp_path / "a.safetensors", {"run": "a"})
    safetensors.load_safetensors(second, tmp_path / "a.safetensors")
    got, want = safetensors.weights_of(second), safetensors.weights_of(first)
    assert got.keys() == want.keys() and "encoder.0.forward.kernel" in got
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


def test_safetensors_that_do_not_fit_are_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        safetensors.load_safetensors(make(0), file)
    file.write_bytes(b"no such thing")
    with pytest.raises(InputError, match="is not a SafeTensors file"):
        safetensors.load_safetensors(make(0), file)
    safetensors.save_safetensors(make(0), file)
    with pytest.raises(InputError, match=r"attention.key_kernel is \(6, 64\); expected \(8, 64\)"):
        safetensors.load_safetensors(make(0, hidden=4), file)


@pytest.mark.parametrize("name", ["x.pyz", "x.safetensors"])
def test_the_command_tries_the_file_it_wrote(tiny_run, tmp_path, capsys, name):
    assert cli.main(["export", f"--workdir={tiny_run}", f"--output={tmp_path}/{name}"]) == 0
    assert "largest difference over 33 texts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=x"], "--output is missing"),
        (
            ["--workdir=x", "--output=a.zip"],
            "expected a file that ends with .pyz, .onnx or .safetensors",
        ),
        (["--workdir=no/such/run", "--output=a.pyz"], "no/such/run is not a run folder"),
        (["--workdir=x", "--output=a.pyz", "y"], "unexpected argument 'y'"),
    ],
)
def test_wrong_arguments_end_in_one_line(capsys, arguments, message):
    assert cli.main(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
