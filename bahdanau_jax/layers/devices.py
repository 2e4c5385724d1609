"""Splits a layer's batch over the devices of the mesh around it (`jax.set_mesh`)."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from bahdanau_jax.layers.layer import Arguments

T = TypeVar("T", bound=tuple)
AXIS = "data"  # the mesh axis along which a batch is split


def splits_the_batch() -> bool:
    """Returns whether the mesh around says how several devices share a batch."""
    mesh = jax.sharding.get_abstract_mesh()
    # Inside `jax.shard_map` all axes are manual, and each device sees only its own rows.
    return AXIS in mesh.axis_names or (bool(mesh.axis_names) and mesh.are_all_axes_manual)


def over_devices(compute: Callable) -> Callable:
    """Wraps a layer's call so that each device computes its share of the rows.

    XLA cannot split the kernel. It can split the scan, but its gradient sums over all steps and rows, for
    which XLA would gather the whole batch on every device.

    Args:
      compute: takes `Arguments`; returns outputs [batch, time, ...], and h and c [directions, batch, hidden].
    """
    devices = _sharing()
    if devices == 1:
        return compute
    rows, states, whole = PartitionSpec(AXIS), PartitionSpec(None, AXIS), PartitionSpec()
    split = jax.shard_map(
        lambda *arguments: compute(Arguments(*arguments)),
        in_specs=(rows, rows, states, whole, whole, whole, states, states, states, states),
        out_specs=(rows, states, states),
        check_vma=False,
    )

    def padded(arguments: Arguments):
        batch, time = arguments.inputs.shape[:2]
        missing = -batch % devices
        if not missing:
            return split(*arguments)
        # Fully masked rows fill up the last device: they change nothing and cost the kernel nothing.
        mask, scale = arguments.mask, arguments.input_scale
        outputs, h, c = split(
            _pad(arguments.inputs, 0, missing),
            _pad(jnp.ones((batch, time), bool) if mask is None else mask, 0, missing),
            None if scale is None else _pad(scale, 1, missing),
            *arguments[3:6],  # the weights
            *(None if x is None else _pad(x, 1, missing) for x in arguments[6:]),
        )
        return outputs[:batch], h[:, :batch], c[:, :batch]

    return padded


def rows_over_devices(compute: Callable, shares_rows: Sequence[bool]) -> Callable:
    """As `over_devices`, for a function of arrays whose results have a row for each row of the batch.

    Args:
      compute: the function. Without rows for every device it gets the whole batch on each.
      shares_rows: of each argument, whether it has the batch's rows; others are whole on each device.
    """
    rows, whole = PartitionSpec(AXIS), PartitionSpec()

    def shared(*arguments):
        devices = _sharing()
        if devices == 1 or len(arguments[shares_rows.index(True)]) % devices:
            return compute(*arguments)
        specs = tuple(rows if shares else whole for shares in shares_rows)
        return jax.shard_map(compute, in_specs=specs, out_specs=rows, check_vma=False)(*arguments)

    return shared


def _sharing() -> int:
    """The number of devices that share a batch here; 1 inside shard_map, which sees its own share."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.manual_axes else mesh.shape.get(AXIS, 1)


def vary_alike(arguments: T) -> T:
    """Makes all arrays of a tuple vary over the same axes of a `jax.shard_map` around.

    The gradient of weights that all devices share then becomes a sum over the devices.
    """
    # [of each array, the axes]; empty unless shard_map checks them (check_vma)
    axes: Any = jax.tree.map(lambda x: jax.typeof(x).mat.varying, arguments)
    every = frozenset().union(*jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, frozenset)))
    return jax.tree.map(
        lambda x, own: jax.lax.pcast(x, tuple(sorted(every - own)), to="varying"), arguments, axes
    )


def in_auto_mode(function: Callable, inputs, out_specs: Callable) -> Callable:
    """Wraps `function` so that XLA chooses the shardings inside it, on a mesh with explicit axes.

    On other meshes, and without one, it returns `function` itself.

    Args:
      function: what to wrap.
      inputs: [batch, ...]; the results' rows are sharded as these are.
      out_specs: takes the sharding of the rows and returns the results' PartitionSpecs.
    """
    if not jax.sharding.get_abstract_mesh().explicit_axes:
        return function
    spec = jax.typeof(inputs).sharding.spec
    return jax.sharding.auto_axes(function, out_sharding=out_specs(spec[0]))


def _pad(x, axis: int, count: int):
    """Adds `count` rows of zeros at the end of `axis`."""
    return jnp.pad(x, [(0, count if n == axis else 0) for n in range(x.ndim)])
