"""Two virtual devices in a process of their own: the same layer, the same run, one batch between them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from test_train import figures, small_config

from bahdanau_jax.runs import environment
from bahdanau_jax.training import train
from bahdanau_jax.errors import InputError

ROOT = Path(__file__).resolve().parent.parent

LAYER = """
import sys
import jax, jax.numpy as jnp, numpy as np
from bahdanau_jax.lstm import bilstm, lstm_implementation

rng = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 0.5, jnp.float32)
x, mask = draw(4, 9, 5), jnp.asarray(rng.random((4, 9)) < 0.7)
weights = draw(2, 5, 12), draw(2, 3, 12), draw(2, 12)
scale, states = draw(2, 4, 5), (draw(2, 4, 3), draw(2, 4, 3))

def loss(x, weights, states, implementation):
    outputs, (h, c) = bilstm(x, *weights, mask=mask, initial_state=states, input_scale=scale,
                             implementation=implementation)
    return jnp.sum(jnp.sin(outputs)) + jnp.sum(jnp.sin(h)) + jnp.sum(c * c)

gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)), static_argnums=3)
assert lstm_implementation()[0] == "scan"  # two devices, and nothing says how to use them
plain = gradient(x, weights, states, "scan")
mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
with jax.set_mesh(mesh):
    assert lstm_implementation()[0] == "native"
    rows = jax.NamedSharding(mesh, jax.P("data"))
    for implementation in ("native", "scan"):
        split = gradient(jax.device_put(x, rows), weights, states, implementation)
        assert split[1][0].sharding.is_equivalent_to(rows, 3), split[1][0].sharding
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, split)
"""

RUN = """
import sys
from absl import flags
from test_train import small_config
from bahdanau_jax import train
from bahdanau_jax.errors import InputError

flags.FLAGS.mark_as_parsed()
config = small_config()
config.host_devices = 2
config.model.dropout = config.model.head_dropout = 0.0
config.bucket_lengths = (64,)
train.add_report = lambda *_: None
result = train.train_and_evaluate(config, sys.argv[1])
assert result["devices"] == ["2 x cpu"] and result["recurrence"] == "native", result
config.batch_size = 15
try:
    train.train_and_evaluate(config, sys.argv[1] + "-15")
except InputError as error:
    print(error)
"""


def in_process(code, *arguments, **environment):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_kernel_runs_on_each_device_with_its_share():
    in_process(LAYER, XLA_FLAGS="--xla_force_host_platform_device_count=2")


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


@pytest.mark.parametrize(
    ("cores", "batch_size", "kernel", "wanted"),
    [(2, 256, True, None), (2, 256, False, 2), (8, 256, False, 4), (3, 256, False, 2), (4, 100, False, 1)],
)  # fmt: skip
def test_devices_are_as_many_as_pay(cores, batch_size, kernel, wanted, monkeypatch):
    asked = {}
    monkeypatch.setattr(environment, "_cores", lambda: cores)
    monkeypatch.setattr(jax.config, "update", asked.__setitem__)
    environment.use_host_devices(0, batch_size=batch_size, kernel=kernel)
    assert asked.get("jax_num_cpu_devices") == wanted


def test_a_number_that_comes_too_late_is_refused():
    jax.devices()
    environment.use_host_devices(0, batch_size=256, kernel=False)  # not asked for: never mind
    with pytest.raises(InputError, match=r"config\.host_devices is 7; expected \d"):
        environment.use_host_devices(7, batch_size=256, kernel=True)
