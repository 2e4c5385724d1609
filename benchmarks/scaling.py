"""Compiles a config's training step for N devices and reports what it moves and holds.

    python -m benchmarks.scaling --devices=64 [--rows=256] [--chip=h100] [--iteration=10] \\
        [--config=experiments/imdb.py] [--config.<field>=<value> ...]

--devices    Devices that share the batch. They are virtual: the step is compiled and never run.
--rows       Reviews per device in a batch, all of the largest length.
--chip       h100 or v5e, whose data sheet the estimate uses.
--iteration  Microseconds that one iteration of the scan takes if its product is small.

Prints one JSON object. Read from the compiled program: parameters, bytes of a checkpoint, bytes of a step's
collectives by kind, and memory of a step on a device besides its arguments. Computed: FLOPs, bytes of a
batch, and an estimate of the least time of a step. docs/scaling.md uses these numbers. The step uses the scan,
which XLA compiles for any device.

Exit codes: 0 done, 2 wrong flags or input.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from absl import flags

from bahdanau_jax.runs.config import Config, Model
from bahdanau_jax.runs.parse_config import parse_config
from benchmarks.network import lstm_flops
from experiments.command import command, parse_flags
from experiments.config_file import parse

MOST_DEVICES = 4096
_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "f16": 2, "s64": 8, "u64": 8}
_COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)


def collective_bytes(hlo: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective in a compiled program. A loop counts once.

    Example:
      >>> collective_bytes("%a = (f32[2,3]{1,0}, f32[]) all-reduce(f32[2,3] %x, f32[] %y), to_apply=%add")
      {'all-reduce': 28}
    """
    found: dict[str, int] = {}
    for match in _COLLECTIVE.finditer(hlo):
        size = sum(
            _BYTES[dtype] * math.prod(int(n) for n in shape.split(",") if n)
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", match["shapes"])
        )
        found[match["kind"]] = found.get(match["kind"], 0) + size
    return found


def flops_per_token(model: Model) -> float:
    """FLOPs of a token in training: three times the products of the forward pass."""
    hidden = model.hidden_features
    features = [model.embedding_features] + [2 * hidden] * (model.num_layers - 1)
    layers = sum(2 * lstm_flops(size, hidden) for size in features)
    return 3.0 * (layers + 2 * 2 * hidden * model.attention_units)


class Chip(NamedTuple):
    """Peak rates from the data sheet."""

    flops: float  # per second, bfloat16, dense
    near: float  # bytes per second to chips of the same machine or pod, one way
    far: float  # to other chips
    node: int  # chips in a machine or pod


CHIPS = {
    # NVLink; InfiniBand of 400 Gb/s each.
    "h100": Chip(flops=989e12, near=450e9, far=50e9, node=8),
    # Links of the pod; 2 x 100 Gb/s for 8 chips.
    "v5e": Chip(flops=197e12, near=200e9, far=3.1e9, node=256),
}


def estimate(
    measured: dict[str, Any], model: Model, chip: Chip, iteration: float
) -> dict[str, float]:
    """The least time of a step: products at peak rate or the scan's iterations, then the all-reduce.

    Args:
      measured: the result of `measure`.
      model: the config's `model` section.
      chip: one of CHIPS.
      iteration: least seconds of an iteration of the scan.

    Example:
      >>> measured = dict(devices=8, rows_per_device=256, length=500, flops_per_device_step=1.57e11,
      ...                 collective_bytes={"all-reduce": 6e6})
      >>> model = Model(num_layers=2)
      >>> estimate(measured, model, CHIPS["h100"], 1e-5)["scan_seconds"]
      0.04
    """
    n = measured["devices"]
    compute = measured["flops_per_device_step"] / chip.flops
    # XLA runs each layer's two directions, forward and backward, one after the other.
    scan = model.num_layers * 2 * 2 * measured["length"] * iteration
    link = chip.near if n <= chip.node else chip.far
    all_reduce = 2 * (n - 1) / n * measured["collective_bytes"].get("all-reduce", 0) / link
    step = max(compute, scan) + all_reduce
    rate = n * measured["rows_per_device"] / step
    return {
        "compute_seconds": compute,
        "scan_seconds": scan,
        "all_reduce_seconds": all_reduce,
        "step_seconds": step,
        "reviews_per_second": rate,
        "days_for_a_billion": 1e9 / rate / 86_400,
    }


def measure(config: Config, devices: int, rows: int) -> dict[str, Any]:
    """Compiles the step for `devices` with `rows` reviews each, and reads the program."""
    import jax
    import numpy as np
    from flax import nnx

    from bahdanau_jax.data.batches import Batch
    from bahdanau_jax.models.build import build_classifier
    from bahdanau_jax.training.optimizer import make_optimizer
    from bahdanau_jax.training.sharding import make_mesh, replicated, split_rows
    from bahdanau_jax.training.steps import train_step

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    mesh = make_mesh()
    fields = config.model.model_dump() | {"implementation": "scan"}

    def make():
        model = build_classifier(fields, config.vocab_size, 2, rngs=nnx.Rngs(config.seed))
        transformation = make_optimizer(**config.optimizer.model_dump(), total_steps=1)
        return nnx.split((model, nnx.Optimizer(model, transformation, wrt=nnx.Param)))

    graphdef, state = nnx.eval_shape(make)
    with_sharding = partial(jax.ShapeDtypeStruct, sharding=replicated(mesh))
    state = jax.tree.map(lambda x: with_sharding(x.shape, x.dtype), state)
    n, length = rows * devices, config.max_length
    kinds = (np.int32, (n, length)), (np.int32, (n,)), (np.bool_, (n,)), (np.int32, (n,))
    batch = Batch(
        *(jax.ShapeDtypeStruct(shape, dtype, sharding=split_rows(mesh)) for dtype, shape in kinds)
    )
    with jax.set_mesh(mesh):
        step = jax.jit(
            partial(train_step, graphdef), donate_argnums=0, out_shardings=replicated(mesh)
        )
        compiled = step.lower(state, batch).compile()
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(state[0], nnx.Param)))
    token = flops_per_token(config.model)
    return {
        "devices": devices,
        "rows_per_device": rows,
        "length": length,
        "parameters": parameters,
        "checkpoint_bytes": sum(
            math.prod(x.shape) * getattr(x.dtype, "itemsize", 8) for x in jax.tree.leaves(state)
        ),
        "collective_bytes": collective_bytes(compiled.as_text() or ""),
        "step_memory_bytes": getattr(compiled.memory_analysis(), "temp_size_in_bytes", None),
        "flops_per_token": token,
        "flops_per_device_step": token * rows * length,
        "batch_bytes_per_device": rows * (4 * length + 9),
    }


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, rest = parse_flags(
        argv, config=True, devices=8, rows=256, chip=tuple(CHIPS), iteration=10.0
    )
    if asked.devices > MOST_DEVICES:
        raise flags.Error(f"--devices={asked.devices}; expected at most {MOST_DEVICES}")
    config = parse_config(parse(rest)[0])
    measured = measure(config, asked.devices, asked.rows)
    found = estimate(measured, config.model, CHIPS[asked.chip], asked.iteration * 1e-6)
    print(json.dumps(measured | {f"estimate_{asked.chip}": found}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
