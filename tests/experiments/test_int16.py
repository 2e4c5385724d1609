"""experiments.int16 and predictions with int16 products."""

import json
import shutil

import numpy as np
import pytest

from bahdanau_jax import Predictor, lstm_implementation
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.int16 import compare
from experiments.int16 import check

TEXTS = ["a dull first hour , then joy", "", "word " * 90]


def test_the_comparison_counts_labels_and_differences():
    first = np.array([[0.4, 0.6], [0.9, 0.1], [0.2, 0.8]])
    second = np.array([[0.4, 0.6], [0.4, 0.6], [0.3, 0.7]])
    found = compare(7, first, second, np.array([1, 0, 0]))
    assert (found.step, found.texts, found.other_labels) == (7, 3, 1)
    assert found.accuracy_float32 == pytest.approx(2 / 3)
    assert found.accuracy_int16 == pytest.approx(1 / 3)
    assert found.largest_difference == pytest.approx(0.5)


@pytest.mark.skipif(
    lstm_implementation("auto")[0] != "native", reason="the CPU kernel does not run here"
)
@pytest.mark.slow
def test_int16_is_refused_until_it_was_compared(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    with pytest.raises(
        InputError, match="int16.json is missing; `python -m experiments.int16 --workdir="
    ):
        Predictor.load(run, products="int16")
    assert "test texts: accuracy" in check(run, 0.0005, "test")
    assert not (run / "int16.json").exists()
    assert "20 validation texts: accuracy" in check(run, 0.0005)
    rounded, exact = Predictor.load(run, products="int16"), Predictor.load(run)
    assert "int16" in rounded.products
    pairs = list(zip(rounded(TEXTS), exact(TEXTS), strict=True))
    differences = [np.abs(a.probabilities - b.probabilities).max() for a, b in pairs]
    assert 0 < max(differences) < 1e-3
    kept = json.loads((run / "int16.json").read_text())
    (run / "int16.json").write_text(json.dumps(kept | {"step": 1}))
    with pytest.raises(InputError, match="is of step 1, the checkpoint of step"):
        Predictor.load(run, products="int16")


def test_a_loss_above_the_limit_is_refused(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    with pytest.raises(InputError, match="expected a loss of at most -2"):
        check(run, -2)
    assert not (run / "int16.json").exists()
