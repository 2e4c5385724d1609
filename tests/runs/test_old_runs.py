"""Run folders of earlier releases predict and resume, or are refused in one line (tests/old_runs/README.md).

`.ci/outside` runs this file with the lowest and the newest versions of the dependencies.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from old_runs.make import TEXTS

from bahdanau_jax import Predictor
from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.parse_config import upgrade
from bahdanau_jax.training.train import train_and_evaluate

OLD_RUNS = Path(__file__).parent.parent / "old_runs"
OLD = sorted(path.parent for path in OLD_RUNS.glob("*/run"))

pytestmark = pytest.mark.slow  # resuming compiles


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def losses(workdir):
    return [line["loss"] for line in lines(workdir / "metrics.jsonl")]


def test_there_are_old_runs():
    assert {path.name for path in OLD} >= {"0.1", "0.2", "0.2-ngrams"}


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.name)
def test_it_predicts_and_resumes_as_its_own_version_did(old, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(old / "run", workdir)
    fields = json.loads((workdir / "config.json").read_text())
    if old.name == "0.1-ngrams":
        for read in (Predictor.load, lambda workdir: open_workdir(workdir, fields).__enter__()):
            with pytest.raises(
                InputError, match="version 0.1, which named.*parameters differently"
            ):
                read(workdir)
        return
    for predicted, expected in zip(
        Predictor.load(workdir)(TEXTS), lines(old / "predicted.jsonl"), strict=True
    ):
        assert predicted.probabilities == pytest.approx(
            list(expected["probabilities"].values()), abs=1e-5
        )

    expected = losses(workdir)
    result = train_and_evaluate(ConfigDict(upgrade(fields)), workdir)
    assert (
        result["steps"] == 8
        and "resumed from the checkpoint of step 4" in (workdir / "train.log").read_text()
    )
    np.testing.assert_allclose(losses(workdir), expected, atol=1e-4)
