"""The package's public names, and what importing them loads."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

import bahdanau_jax

HEAVY = {
    "absl",
    "grain",
    "jax",
    "flax",
    "numba",
    "orbax.checkpoint",
    "pydantic",
    "sklearn",
    "tensorflow_datasets",
}


def modules_loaded_by(code):
    """The modules in a fresh interpreter after `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module", ["bahdanau_jax", "bahdanau_jax.token_ids", "bahdanau_jax.errors"]
)
def test_importing_the_package_loads_no_library(module):
    assert not modules_loaded_by(f"import {module}") & HEAVY


def test_the_schema_of_configs_loads_no_jax():
    assert not modules_loaded_by("import bahdanau_jax.runs.config") & {"jax", "flax", "numba"}


@pytest.mark.slow
def test_a_layer_loads_only_what_flax_and_the_kernel_load():
    layer = """
import jax.numpy as jnp
import bahdanau_jax as bj
from flax import nnx
bj.BiLSTM(2, 3, rngs=nnx.Rngs(0))(jnp.ones((1, 4, 2)))
"""
    allowed = modules_loaded_by("from flax import nnx")
    loaded = modules_loaded_by(layer)
    assert not (loaded - allowed) & (HEAVY - {"numba"})
    ours = {name for name in loaded if name.startswith("bahdanau_jax.")}
    assert all(name.startswith("bahdanau_jax.layers") for name in ours), ours


def test_every_public_name_can_be_imported_and_is_listed():
    for name in bahdanau_jax.__all__:
        assert getattr(bahdanau_jax, name).__name__ == name
        assert name in dir(bahdanau_jax)
    assert set(bahdanau_jax.__all__) == set(bahdanau_jax._MODULES)
    assert bahdanau_jax.__version__ == version("bahdanau-jax")
    with pytest.raises(
        AttributeError, match="module 'bahdanau_jax' has no attribute 'Transformer'"
    ):
        _ = bahdanau_jax.Transformer  # pyright: ignore[reportAttributeAccessIssue]
