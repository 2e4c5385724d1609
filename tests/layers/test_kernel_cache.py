"""Processes that compile the kernel at the same time, or are killed, leave no mixture of functions behind."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

GRADIENT = """
import jax, numpy as np
from flax import nnx
from bahdanau_jax import BiLSTM
from bahdanau_jax.layers import cpu_kernel

assert cpu_kernel.obstacle() is None, cpu_kernel.obstacle()
inputs = jax.random.normal(jax.random.key(0), (8, 9, 20))
mask = jax.numpy.arange(9) < jax.numpy.arange(2, 10)[:, None]
found = []
for implementation in ("native", "scan"):
    layer = BiLSTM(20, 12, implementation=implementation, rngs=nnx.Rngs(0))
    loss = lambda layer: (layer(inputs, mask)[0] ** 2).sum()
    found.append(jax.tree.leaves(nnx.grad(loss)(layer)))
for native, scan in zip(*found, strict=True):
    np.testing.assert_allclose(native, scan, atol=1e-4)
"""
# Dies before everything is compiled.
KILLED = """
import os
from bahdanau_jax.layers.cpu_kernel import product

os._exit(9)
"""


@pytest.fixture
def start(tmp_path):
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}

    def start(script):
        return subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.PIPE)

    return start


def finish(process):
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()[-2000:]


def folders(tmp_path):
    return sorted(path.name for path in (tmp_path / "bahdanau_jax").glob("numba-*"))


def test_of_two_that_compile_at_once_one_is_kept(start, tmp_path):
    for process in [start(GRADIENT), start(GRADIENT)]:
        finish(process)
    (name,) = folders(tmp_path)
    files = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "bahdanau_jax" / name).rglob("*")
    }
    assert len(files) > 20
    finish(start(GRADIENT))  # loads it
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert folders(tmp_path) == [name]


def test_what_a_killed_process_has_compiled_is_not_loaded(start, tmp_path):
    killed = start(KILLED)
    killed.communicate(timeout=300)
    assert killed.returncode == 9
    (left,) = folders(tmp_path)
    finish(start(GRADIENT))
    (name,) = set(folders(tmp_path)) - {left}
    assert left.startswith(f"{name}-")
    # A part of it is deleted: it is compiled anew.
    folder = tmp_path / "bahdanau_jax" / name
    next(folder.glob("*/product.*.nbc")).unlink()
    finish(start(GRADIENT))
    assert len(list(folder.glob("*/*.nb?"))) == int((folder / "complete").read_text())
