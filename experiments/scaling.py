"""What a training step of a config moves and holds on N devices, from the step as XLA compiles it for them.

    python -m experiments.scaling --devices=64 [--rows=256] [--chip=h100] [--iteration=10] \\
        [--config=experiments/imdb.py] [--config.<field>=<value> ...]

--devices  How many devices share the batch. They are virtual: the step is compiled, not run, so memory for
           N devices is not needed.
--rows     Reviews a batch on each device, all of the longest length.
--chip     h100 or v5e: whose data sheet the estimate takes.
--iteration  Microseconds that one iteration of the scan is assumed to take where its product is small.

Prints one JSON object: parameters, bytes of a checkpoint, bytes of a step's collectives by kind, memory that
a step needs on a device beside its arguments, FLOPs by arithmetic, and bytes of a batch's ids, all of the
program as compiled; then an estimate of the least time of a step. docs/scaling.md is made from these. It
takes the scan, which XLA can compile for any device.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from bahdanau_jax.workdir import validate_config
from experiments import run as launcher
from experiments.command import command

_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "f16": 2, "s64": 8, "u64": 8}
_COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)


def collective_bytes(hlo: str) -> dict[str, int]:
    """Bytes of what each kind of collective gives in a compiled program, loops counted once.

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


def flops_per_token(model: ConfigDict) -> float:
    """Multiplications and additions of a token in training: three times the forward pass's products."""
    hidden, width, layers = model.hidden_features, model.embedding_features, 0
    for _ in range(model.num_layers):
        layers += 2 * 2 * (width + hidden) * 4 * hidden
        width = 2 * hidden
    return 3.0 * (layers + 2 * width * model.attention_units)


class Chip(NamedTuple):
    """Peak rates by the maker's data sheet."""

    flops: float  # a second, bfloat16, dense
    near: float  # bytes a second to the chips of the same machine or pod, one way
    far: float  # to those of another
    node: int  # chips that are near


CHIPS = {
    "h100": Chip(flops=989e12, near=450e9, far=50e9, node=8),  # NVLink; InfiniBand of 400 Gb/s each
    "v5e": Chip(
        flops=197e12, near=200e9, far=3.1e9, node=256
    ),  # links of the pod; 2 x 100 Gb/s for 8
}


def estimate(
    measured: dict[str, Any], model: ConfigDict, chip: Chip, iteration: float
) -> dict[str, float]:
    """The least time of a step: the products at peak rate or the scan's iterations, then the all-reduce.

    Args:
      measured: as from `measure`.
      model: the config's.
      chip: what computes.
      iteration: seconds that an iteration of the scan takes at least.

    Example:
      >>> measured = dict(devices=8, rows_per_device=256, length=500, flops_per_device_step=1.57e11,
      ...                 collective_bytes={"all-reduce": 6e6})
      >>> model = ConfigDict({"num_layers": 2})
      >>> estimate(measured, model, CHIPS["h100"], 1e-5)["scan_seconds"]
      0.04
    """
    n = measured["devices"]
    compute = measured["flops_per_device_step"] / chip.flops
    # Each layer in two directions, forward and back, which XLA runs one after the other.
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


def measure(config: ConfigDict, devices: int, rows: int) -> dict[str, Any]:
    """Compiles the step for so many devices with `rows` reviews each, and reads it."""
    import jax
    import numpy as np
    from flax import nnx

    from bahdanau_jax.batches import Batch
    from bahdanau_jax.optimizer import make_optimizer
    from bahdanau_jax.steps import make_mesh, replicated, split_rows, train_step
    from bahdanau_jax.train import make_model

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    mesh = make_mesh()
    config.model.implementation = "scan"

    def make():
        model = make_model(config, 2)
        transformation = make_optimizer(**config.optimizer, total_steps=1)
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
    asked = flags.FlagValues()
    flags.DEFINE_integer("devices", 8, "", lower_bound=1, upper_bound=4096, flag_values=asked)
    flags.DEFINE_integer("rows", 256, "", lower_bound=1, flag_values=asked)
    flags.DEFINE_enum("chip", "h100", list(CHIPS), "", flag_values=asked)
    flags.DEFINE_float("iteration", 10.0, "", lower_bound=0.0, flag_values=asked)
    asked.set_gnu_getopt(True)
    rest = asked(argv, known_only=True)
    launcher.refuse_other_flags(rest, ["devices", "rows", "chip", "iteration"])
    config, _ = launcher.parse(rest)
    validate_config(config)
    flags.FLAGS.mark_as_parsed()
    measured = measure(config, asked.devices, asked.rows)
    found = estimate(measured, config.model, CHIPS[asked.chip], asked.iteration * 1e-6)
    print(json.dumps(measured | {f"estimate_{asked.chip}": found}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
