"""The implementations of an LSTM layer: which one a platform takes, and the records that they share.

`scan` runs everywhere. The others are modules with

- `obstacle()`: why the implementation cannot run in this process, or None;
- `declined()`: why "auto" does not take it, or None;
- `run(layer, arguments)`: the results (outputs, h, c);
- `run_saving(layer, arguments, size)`: the results, and records of `size` int32;
- `gradients(layer, arguments, records, of_results)`: as `scan.gradients`;
- `record_size(layer, arguments)`: the least `size`.

A program that is traced once may be lowered for several platforms, whose records need one type. So they are
opaque int32, as many as the largest need, and only the implementation that wrote them reads them.
"""

import functools
import logging
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bahdanau_jax.layers import cpu_kernel, cudnn, gpu_kernel, scan
from bahdanau_jax.layers.layer import Arguments, Layer

MODULES = {"native": cpu_kernel, "fused": gpu_kernel, "cudnn": cudnn}
_log = logging.getLogger(__name__)


def choose(layer: Layer, platform: str | None, *, exporting: bool) -> str:
    """Returns the implementation that a layer uses where it is lowered for `platform`.

    An exported program takes the scan, since it may run where this package is not installed.

    Raises:
      ValueError: one implementation is asked for, which does not run there.
    """
    names = [name for runs_on, name in layer.platforms if runs_on == platform]
    if not names and layer.others is None:
        (runs_on, name), *_ = layer.platforms
        raise ValueError(
            f"implementation is {name!r}, which runs on {runs_on} alone; this program is lowered for "
            f"{platform or 'another platform'}"
        )
    if layer.others is None:
        (name,) = names
        if why := MODULES[name].obstacle():
            raise ValueError(f"implementation is {name!r}, which cannot run here: {why}")
        return name
    if exporting or not names:
        return layer.others
    declined = []
    for name in names:
        why = MODULES[name].declined()
        if why is None:
            return name
        declined.append(why)
    if platform == "cuda":
        _say_once(f"{'; '.join(declined)}; the scan computes LSTM layers on GPUs")
    return layer.others


@functools.cache
def _say_once(line: str) -> None:
    _log.warning(line)


def _usable(layer: Layer) -> set[str]:
    """The implementations besides the scan that may run this layer."""
    names = (name for _, name in layer.platforms)
    return {
        name
        for name in names
        if not (MODULES[name].declined() if layer.others else MODULES[name].obstacle())
    }


def record_types(layer: Layer, arguments: Arguments) -> list[tuple[tuple, jnp.dtype]]:
    """Shapes and dtypes of the records of a layer, from the shapes of its arguments."""
    shapes = _scan_records(arguments)
    names = _usable(layer)
    if not names:
        return [(shape, layer.carry_dtype) for shape in shapes]
    sizes = {MODULES[name].record_size(layer, arguments) for name in names}
    sizes.add(sum(math.prod(shape) for shape in shapes))
    return [((max(sizes),), jnp.dtype(jnp.int32))]


def _scan_records(arguments: Arguments) -> list[tuple]:
    batch, time, _ = arguments.inputs.shape
    directions, hidden, _ = arguments.recurrent_kernel.shape
    return [(time, batch, hidden)] * (6 * directions)


def run(name: str, layer: Layer, arguments: Arguments) -> scan.Results:
    """Runs a layer by the implementation `name`."""
    return (scan if name == "scan" else MODULES[name]).run(layer, arguments)


def run_saving(name: str, layer: Layer, arguments: Arguments) -> tuple[scan.Results, list[Array]]:
    """Runs a layer and returns its records too, of `record_types`."""
    (shape, _), *_ = record_types(layer, arguments)
    if name != "scan":
        results, records = MODULES[name].run_saving(layer, arguments, shape[0])
        return results, [records]
    results, records = scan.run_saving(layer, arguments)
    if _usable(layer):
        flat = [jax.lax.bitcast_convert_type(x, jnp.int32).reshape(-1) for x in records]
        unused = shape[0] - sum(x.size for x in flat)
        records = [jnp.concatenate([*flat, jnp.zeros(unused, jnp.int32)])]
    return results, records


def gradients(
    name: str,
    layer: Layer,
    arguments: Arguments,
    records: Sequence[Array],
    of_results: scan.Results,
) -> tuple[Array, ...]:
    """Returns the gradients of inputs, kernel, recurrent_kernel, bias, h and c."""
    if name != "scan":
        return MODULES[name].gradients(layer, arguments, records[0], of_results)
    if _usable(layer):
        shapes, flat, start = _scan_records(arguments), records[0], 0
        records = []
        for shape in shapes:
            part = flat[start : start + math.prod(shape)].reshape(shape)
            records.append(jax.lax.bitcast_convert_type(part, layer.carry_dtype))
            start += math.prod(shape)
    return scan.gradients(layer, arguments, records, of_results)
