"""Under JAX's flags a run works, or is refused in one line that names the flag; docs/flags.md lists them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from bahdanau_jax import InputError, Predictor
from bahdanau_jax.runs import flags
from bahdanau_jax.training.train import train_and_evaluate

TEXTS = ["", "a wonderful film " * 20, "dull"]
CHECKS = {
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_transfer_guard": "disallow",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_enable_checks": True,
    "jax_legacy_prng_key": "error",
}


@contextlib.contextmanager
def under(**values):
    """JAX with these flags."""
    before = {name: getattr(jax.config, name) for name in values}
    try:
        for name, value in values.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, getattr(value, "value", value))


def probabilities(run):
    return np.array([x.probabilities for x in Predictor.load(run)(TEXTS)])


@pytest.fixture(scope="module")
def expected(tiny_run):
    return probabilities(tiny_run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [CHECKS, {"jax_enable_x64": True}, {"jax_default_prng_impl": "rbg"}, {"jax_disable_jit": True}],
    ids=lambda values: "checks" if len(values) > 1 else next(iter(values)),
)
def test_a_run_predicts_the_same(tiny_run, expected, values):
    with under(**values):
        np.testing.assert_allclose(probabilities(tiny_run), expected, atol=1e-6)


def config_of(run):
    return ConfigDict(json.loads((run / "config.json").read_text()))


@pytest.mark.slow
def test_checks_change_no_bit_of_a_training(tiny_run, tmp_path):
    with under(**CHECKS):
        train_and_evaluate(config_of(tiny_run), tmp_path / "run")
    found, want = (run / "predictions.jsonl" for run in (tmp_path / "run", tiny_run))
    assert found.read_bytes() == want.read_bytes()


@pytest.mark.long
@pytest.mark.slow
def test_a_training_without_jit(tiny_run, tmp_path):
    config = config_of(tiny_run)
    config.data.train_size, config.data.validation_size, config.data.test_size = 30, 4, 4
    config.bucket_lengths, config.max_length = (4,), 4  # each step of a text is a Python loop
    with under(jax_disable_jit=True):
        result = train_and_evaluate(config, tmp_path / "run")
    assert result["steps"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "without_names"),
    [
        ("jax_enable_x64", True, "expected JAX_ENABLE_X64=0, as the run began"),
        ("jax_default_prng_impl", "rbg", "expected JAX_DEFAULT_PRNG_IMPL=threefry2x32"),
    ],
)
def test_a_resume_names_the_flag_that_has_changed(tiny_run, tmp_path, name, value, without_names):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "result.json").unlink()
    checkpoints = sorted(os.listdir(run / "checkpoints"))
    with under(**{name: value}):
        with pytest.raises(InputError, match=f"{name.upper()} is not what this run began with"):
            train_and_evaluate(config_of(run), run)
        data = json.loads((run / "data.json").read_text())  # 0.2 kept no flags
        data = {key: x for key, x in data.items() if not key.startswith("JAX_")}
        (run / "data.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=without_names):
            train_and_evaluate(config_of(run), run)
    assert sorted(os.listdir(run / "checkpoints")) == checkpoints


@pytest.mark.slow
def test_a_run_in_float64_predicts_without_x64(tiny_run, tmp_path):
    with under(jax_enable_x64=True):
        train_and_evaluate(config_of(tiny_run), tmp_path / "run")
        want = probabilities(tmp_path / "run")
    np.testing.assert_allclose(probabilities(tmp_path / "run"), want, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_no_tracing", True),
        ("jax_array_garbage_collection_guard", "fatal"),
        ("jax_debug_key_reuse", True),
    ],
)
def test_flags_under_which_nothing_trains_are_named(name, value):
    with under(**{name: value}), pytest.raises(InputError, match=name.upper()):
        flags.check_flags(training=True)


def test_the_child_of_a_fork_is_told(monkeypatch):
    monkeypatch.setattr(flags, "_first_process", os.getppid())
    with pytest.raises(RuntimeError, match="forked from process"):
        flags.check_not_forked()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "predict"])
def test_a_platform_that_is_not_here_is_named(tiny_run, tmp_path, command):
    arguments = {
        "run": ["--config=experiments/imdb_tiny.py", f"--workdir={tmp_path}/run"],
        "predict": [f"--workdir={tiny_run}", "good"],
    }
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{command}", *arguments[command]],
        capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "rocm"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS is 'rocm'"), done.stderr
    assert done.stderr.count("\n") == 1
