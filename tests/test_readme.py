"""The Python snippets of README.md, docs/interface.md and docs/files.md run as written."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def snippets(page):
    """The page's blocks of Python."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def run(page, containing):
    """Runs the one snippet with this text; returns its variables."""
    (snippet,) = [snippet for snippet in snippets(page) if containing in snippet]
    variables = {}
    exec(compile(snippet, page, "exec"), variables)
    return variables


def test_each_page_has_only_the_snippets_tested_here():
    pages = ("README.md", "docs/interface.md", "docs/files.md")
    assert [len(snippets(page)) for page in pages] == [3, 3, 2]


@pytest.mark.slow
def test_layers_in_your_own_code():
    found = run("README.md", "bj.BahdanauAttention(")
    assert found["context"].shape == (4, 128) and found["weights"].shape == (1, 5)
    assert found["outputs"].shape == (4, 10, 128) and found["logits"].shape == (1, 1)


def test_a_config_of_your_own():
    from bahdanau_jax.runs.parse_config import parse_config
    from experiments import imdb

    config = parse_config(run("README.md", "def get_config():")["get_config"]())
    assert config.model.num_layers == 1
    assert config.optimizer == parse_config(imdb.get_config()).optimizer


@pytest.mark.slow
def test_predictor(tiny_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "imdb").symlink_to(tiny_run)
    monkeypatch.chdir(tmp_path)
    found = run("README.md", "bj.Predictor.load(")
    prediction = found["prediction"]
    assert prediction.label in found["predictor"].label_names
    assert capsys.readouterr().out == f"{prediction.label} {prediction.probability}\n"


def test_attention_in_a_decoder():
    found = run("docs/interface.md", "attention.project(")
    assert found["context"].shape == (4, 128) and found["weights"].shape == (4, 10)
    assert (found["context"][3] == 0).all()


def test_masks():
    found = run("docs/interface.md", "causal = ")
    seen = found["causal"] & found["real"][:, None] & found["real"][:, :, None]
    assert found["context"].shape == (4, 10, 16) and ((found["weights"] > 0) == seen).all()


def test_layers_in_linen():
    found = run("docs/interface.md", "nnx.bridge")
    weights = found["weights"]
    assert weights.shape == (4, 10) and (weights[2, 3:] == 0).all() and (weights[3] == 0).all()


@pytest.mark.slow
def test_weights_from_pytorch():
    torch = pytest.importorskip("torch")
    import numpy as np

    found = run("docs/files.md", "convert.bilstm_from_torch(")
    inputs = torch.randn(2, 7, 16)
    with torch.no_grad():
        expected = found["lstm"](inputs)[0].numpy()
    outputs, _ = found["encoder"](inputs.numpy())
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.slow
def test_a_prediction_with_onnx_runtime(tiny_run, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from bahdanau_jax import Predictor
    from bahdanau_jax.interop.onnx import export_onnx

    export_onnx(tiny_run, tmp_path / "imdb.onnx")
    monkeypatch.chdir(tmp_path)
    found = run("docs/files.md", "onnxruntime.InferenceSession(")
    (prediction,) = Predictor.load(tiny_run)(["A dull first hour, then pure joy."])
    assert found["probabilities"][0] == pytest.approx(prediction.probabilities, abs=1e-6)
    assert found["weights"][0] == pytest.approx(prediction.weights, abs=1e-6)
