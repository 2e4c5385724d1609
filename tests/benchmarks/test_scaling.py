"""Bytes and FLOPs of a step on many devices agree with arithmetic."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from flax import nnx

from bahdanau_jax.models.build import build_classifier
from bahdanau_jax.runs.parse_config import parse_config
from benchmarks import scaling
from experiments import imdb, imdb_tiny

ROOT = Path(scaling.__file__).parent.parent


def test_bytes_of_collectives_are_read_from_a_compiled_program():
    hlo = """
  %all-reduce.1 = f32[10,4]{1,0} all-reduce(f32[10,4]{1,0} %p), replica_groups={}
  %all-reduce-start = (f32[2]{0}, s32[]) all-reduce-start(f32[2]{0} %a, s32[] %b)
  %all-gather = bf16[8,3]{1,0} all-gather(bf16[4,3]{1,0} %c), dimensions={0}
  %add = f32[100]{0} add(f32[100]{0} %d, f32[100]{0} %e)
"""
    assert scaling.collective_bytes(hlo) == {"all-reduce": 160 + 12, "all-gather": 48}


def test_flops_of_a_token_agree_with_the_docs():
    model = parse_config(imdb.get_config()).model
    assert scaling.flops_per_token(model) == pytest.approx(3 * 0.41e6, rel=0.01)


@pytest.mark.slow
def test_the_gradient_of_each_parameter_is_reduced_once():
    command = [
        sys.executable, "-m", "benchmarks.scaling", "--config=experiments/imdb_tiny.py",
        "--devices=4", "--rows=2",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    config = parse_config(imdb_tiny.get_config())
    fields, vocab_size = config.model.model_dump(), config.vocab_size
    model = nnx.eval_shape(lambda: build_classifier(fields, vocab_size, 2, rngs=nnx.Rngs(0)))
    parameters = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert found["parameters"] == parameters
    assert set(found["collective_bytes"]) == {"all-reduce"}  # batches are not gathered
    reduced = found["collective_bytes"]["all-reduce"]
    assert 4 * parameters <= reduced <= 1.2 * 4 * parameters + 1000
    assert found["batch_bytes_per_device"] == 2 * (64 * 4 + 9)
