"""A run on two virtual devices, in a process of its own, equals the run on one. For layers see test_meshes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from test_train import figures, small_config

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs import environment
from bahdanau_jax.training import train

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import sys
from absl import flags
from test_train import small_config
from bahdanau_jax.training import train
from bahdanau_jax.errors import InputError

flags.FLAGS.mark_as_parsed()
config = small_config()
config.host_devices = 2
config.model.dropout = config.model.head_dropout = 0.0
config.bucket_lengths = (64,)
result = train.train_and_evaluate(config, sys.argv[1])
assert result["devices"] == ["2 x cpu"] and result["recurrence"] == "native", result
config.batch_size = 15
try:
    train.train_and_evaluate(config, sys.argv[1] + "-15")
except InputError as error:
    print(error)
"""


def in_process(code, *arguments, **environment):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.long
@pytest.mark.slow
def test_the_number_of_devices_does_not_change_a_run(tmp_path):
    said = in_process(RUN, str(tmp_path / "two"))
    assert "config.batch_size is 15; expected a multiple of the 2 devices" in said
    config = small_config()
    config.model.dropout = config.model.head_dropout = 0.0
    config.bucket_lengths = (64,)
    train.train_and_evaluate(config, tmp_path / "one")
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    rows = [
        json.loads(line) for line in (tmp_path / "two/predictions.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 50  # validation and test, each review once
    assert (tmp_path / "two/report.html").exists()


@pytest.mark.parametrize(
    ("cores", "batch_size", "kernel", "wanted"),
    [(2, 256, True, None), (2, 256, False, 2), (8, 256, False, 4), (3, 256, False, 2), (4, 100, False, 1)],
)  # fmt: skip
def test_how_many_devices_are_used(cores, batch_size, kernel, wanted, monkeypatch):
    asked = {}
    monkeypatch.setattr(environment, "_cores", lambda: cores)
    monkeypatch.setattr(jax.config, "update", asked.__setitem__)
    environment.use_host_devices(0, batch_size=batch_size, kernel=kernel)
    assert asked.get("jax_num_cpu_devices") == wanted


def test_a_number_set_after_jax_started_is_refused():
    jax.devices()
    environment.use_host_devices(0, batch_size=256, kernel=False)  # not asked for: never mind
    with pytest.raises(InputError, match=r"config\.host_devices is 7; expected \d"):
        environment.use_host_devices(7, batch_size=256, kernel=True)
