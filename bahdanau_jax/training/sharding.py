"""Placement on devices: every device holds the whole state; a batch's rows are split over the devices."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bahdanau_jax.data.batches import Batch


def make_mesh() -> Mesh:
    """All devices along one axis, "data"."""
    # Auto: XLA splits the step along the batch.
    return jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A sharding with a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def on_every_device(mesh: Mesh, state: Any) -> Any:
    """Copies the state to every device of every process."""
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(state, sharding)

    def put(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                put(jax.random.key_data(x)), impl=jax.random.key_impl(x)
            )
        # device_put would ask the other processes about each array.
        values = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: values[index])

    return jax.tree.map(put, state)


def split_rows(mesh: Mesh) -> NamedSharding:
    """A sharding that splits rows over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def shard_batches(batches: Iterator[Batch], mesh: Mesh) -> Iterator[Batch]:
    """Puts each process's share of a batch on its devices, as one array over the mesh."""
    sharding = split_rows(mesh)
    for batch in batches:
        yield Batch(*(jax.make_array_from_process_local_data(sharding, x) for x in batch))
