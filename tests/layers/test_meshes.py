"""Layers on several virtual devices equal the same layers on one, under any mesh. Runs in a fresh process."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # compiles for long

START = """
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from bahdanau_jax.layers import BahdanauAttention, BiLSTM, bilstm, lstm_implementation

rng = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 0.5, jnp.float32)
close = lambda a, b: jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), a, b)
"""

LAYER = """
x, mask = draw(4, 9, 5), jnp.asarray(rng.random((4, 9)) < 0.7)
weights = draw(2, 5, 12), draw(2, 3, 12), draw(2, 12)
scale, states = draw(2, 4, 5), (draw(2, 4, 3), draw(2, 4, 3))

def loss(x, weights, states, implementation):
    outputs, (h, c) = bilstm(x, *weights, mask=mask, initial_state=states, input_scale=scale,
                             implementation=implementation)
    return jnp.sum(jnp.sin(outputs)) + jnp.sum(jnp.sin(h)) + jnp.sum(c * c)

gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)), static_argnums=3)
assert lstm_implementation()[0] == "scan"  # two devices without a mesh
plain = gradient(x, weights, states, "scan")
mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,))
with jax.set_mesh(mesh):
    assert lstm_implementation()[0] == "native"
    rows = NamedSharding(mesh, P("data"))
    for implementation in ("native", "scan"):
        split = gradient(jax.device_put(x, rows), weights, states, implementation)
        assert split[1][0].sharding.is_equivalent_to(rows, 3), split[1][0].sharding
        close(plain, split)

# What only the scan computes, on three rows, which do not divide by two devices.
options = dict(resets=jnp.asarray(rng.random((3, 9)) < 0.4), recurrent_scale=draw(2, 3, 3))
gradient = jax.jit(jax.value_and_grad(lambda x, weights: jnp.sum(
    jnp.sin(bilstm(x, *weights, mask=mask[:3], **options)[0])), argnums=(0, 1)))
plain = gradient(x[:3], weights)
with jax.set_mesh(mesh):
    close(plain, gradient(x[:3], weights))
"""

# Three rows do not divide by two devices. `jax.make_mesh` makes explicit axes by default.
MESHES = """
layers = {i: BiLSTM(6, 4, implementation=i, rngs=nnx.Rngs(0)) for i in ("scan", "auto")}
attention = BahdanauAttention(8, 6, 4, num_heads=2, rngs=nnx.Rngs(1))
inputs = {rows: np.asarray(draw(rows, 5, 6)) for rows in (3, 4)}

def loss(x, implementation):
    outputs, (h, c) = layers[implementation](x)
    context, weights = attention(h, x)
    return sum(jnp.sum(jnp.sin(y)) for y in (outputs, c, context, weights)), outputs

gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
plain = {rows: gradient(x, "scan") for rows, x in inputs.items()}
plain = jax.tree.map(np.asarray, plain)
for name, kinds in {"data": (AxisType.Auto, AxisType.Explicit), "batch": (AxisType.Explicit,)}.items():
    for kind in kinds:
        mesh = jax.make_mesh((2,), (name,), (kind,))
        with jax.set_mesh(mesh):
            for rows, spec in ((3, P()), (4, P(name))):
                placed = jax.device_put(inputs[rows], NamedSharding(mesh, spec))
                for implementation in layers:
                    close(plain[rows], gradient(placed, implementation))
"""

SHARD_MAP = """
layer = BiLSTM(6, 4, rngs=nnx.Rngs(0))
x = draw(4, 5, 6)
plain = np.asarray(layer(x)[0])
for name in ("data", "batch"):
    def local(x):
        assert lstm_implementation()[0] == "native"
        return layer(x)[0]

    mesh, rows = jax.make_mesh((2,), (name,), (AxisType.Auto,)), P(name)
    split = jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    close(plain, jax.jit(split)(x))

# With check_vma, the gradient of shared weights is summed over the devices, also where one axis is not manual.
graph, state = nnx.split(layer)
gradient = jax.grad(lambda state, x: jnp.sum(jnp.sin(nnx.merge(graph, state)(x)[0])))
plain = jax.tree.map(np.asarray, gradient(state, x))
for sizes, manual in (((2, 1), {"batch", "data"}), ((2, 1), {"batch"}), ((1, 2), {"batch"})):
    mesh = jax.make_mesh(sizes, ("batch", "data"), (AxisType.Auto,) * 2)
    split = jax.shard_map(
        gradient, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P(), axis_names=manual)
    close(plain, jax.jit(split)(state, x))
"""


RUN = """
import json, sys, traceback
failures = {}
for name, part in json.loads(sys.argv[1]).items():
    try:
        exec(part, dict(globals()))
    except Exception:
        failures[name] = traceback.format_exc()
print(json.dumps(failures))
"""


@pytest.fixture(scope="module")
def failures():
    """The tracebacks of the parts that failed, all run in one process."""
    parts = {"layer": LAYER, "meshes": MESHES, "shard_map": SHARD_MAP}
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-P", "-c", START + RUN, json.dumps(parts)],
        env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_each_device_runs_the_kernel_on_its_share_of_the_batch(failures):
    assert failures.get("layer") is None


def test_any_mesh_and_any_number_of_rows_give_the_results_of_one_device(failures):
    assert failures.get("meshes") is None


def test_layers_run_inside_shard_map(failures):
    assert failures.get("shard_map") is None
