"""The jitted steps: what they compute, on which devices, and their compilation ahead of time."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bahdanau_jax.batches import Batch, eval_batches
from bahdanau_jax.objective import Metrics, loss_and_metrics


def train_step(graphdef: nnx.GraphDef, state: nnx.State, batch: Batch) -> tuple[nnx.State, Metrics]:
    """One step of gradient descent, a pure function: `graphdef, state = nnx.split((model, optimizer))`."""
    model, optimizer = nnx.merge(graphdef, state)

    def loss_fn(model):
        logits, _ = model(batch.ids)
        return loss_and_metrics(logits, batch.labels, batch.real)

    (_, metrics), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    optimizer.update(model, grads)
    return nnx.state((model, optimizer)), metrics


def eval_step(graphdef: nnx.GraphDef, state: nnx.State, batch: Batch) -> tuple[jax.Array, Any]:
    """Logits [batch, outputs] of a model split after `model.eval()`, and the rows they belong to."""
    logits, _ = nnx.merge(graphdef, state)(batch.ids)
    return logits, batch.rows


def make_mesh() -> Mesh:
    """All devices in one row, over which batches are split."""
    # Auto: XLA splits the whole step along the batch by itself.
    return jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh) -> NamedSharding:
    """Rows split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def shard_batches(batches: Iterator[Batch], mesh: Mesh) -> Iterator[Batch]:
    """Puts each process's share of a batch on its devices, as one array over the mesh."""
    sharding = split_rows(mesh)
    for batch in batches:
        yield Batch(*(jax.make_array_from_process_local_data(sharding, x) for x in batch))


class CompiledAhead:
    """A step compiled for each batch length in background threads, while the data is being prepared.

    Call it as the step: `step(state, batch)`; it waits for that length's compilation if need be.
    """

    def __init__(
        self,
        step: Callable,
        state: Any,
        lengths: Sequence[int],
        *,
        batch_size: int,
        mesh: Mesh,
        pool: ThreadPoolExecutor,
        donate: bool,
    ):
        jitted = jax.jit(
            step, donate_argnums=(0,) if donate else (), out_shardings=replicated(mesh)
        )
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), state
        )

        def row(dtype, *shape):
            return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=split_rows(mesh))

        def compile_for(length: int):
            batch = Batch(row(np.int32, length), row(np.int32), row(np.bool_), row(np.int32))
            begun = time.monotonic()
            compiled = jitted.lower(abstract, batch).compile()
            self._times.append((begun, time.monotonic()))
            return compiled

        self._times: list[tuple[float, float]] = []
        self._compiled: dict[int, Future] = {n: pool.submit(compile_for, n) for n in lengths}

    def __call__(self, state: Any, batch: Batch) -> Any:
        return self._compiled[batch.ids.shape[1]].result()(state, batch)

    def __len__(self) -> int:
        return len(self._compiled)

    def compilation_times(self) -> list[tuple[float, float]]:
        """When each compilation began and ended, by `time.monotonic()`."""
        for compiled in self._compiled.values():
            compiled.result()
        return self._times


class Evaluator:
    """Logits of every review of a split, in the split's order, without dropout."""

    def __init__(
        self,
        model: nnx.Module,
        lengths: Sequence[int],
        *,
        batch_size: int,
        mesh: Mesh,
        pool: ThreadPoolExecutor,
    ):
        graphdef, state = nnx.split(nnx.view(model, deterministic=True))
        self._lengths, self._batch_size, self._mesh = lengths, batch_size, mesh
        self._step = CompiledAhead(
            partial(eval_step, graphdef),
            state,
            lengths,
            batch_size=batch_size,
            mesh=mesh,
            pool=pool,
            donate=False,
        )

    def compilation_times(self) -> list[tuple[float, float]]:
        """As CompiledAhead's."""
        return self._step.compilation_times()

    def __call__(self, model_state: nnx.State, ids: Sequence[np.ndarray]) -> np.ndarray:
        """Returns float32 [n, outputs]."""
        batches = eval_batches(
            ids,
            np.zeros(len(ids), np.int32),
            batch_size=self._batch_size,
            bucket_lengths=self._lengths,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        # Nothing is fetched before the last batch has been handed to the device.
        outputs = [self._step(model_state, batch) for batch in shard_batches(batches, self._mesh)]
        logits = np.zeros((len(ids), outputs[0][0].shape[-1]), np.float32)
        for batch_logits, rows in jax.device_get(outputs):
            logits[rows[rows >= 0]] = batch_logits[rows >= 0]
        return logits


def compilation_figures(compiled: Sequence[CompiledAhead | Evaluator], started: float) -> dict:
    """Seconds spent on compiling, or on reading what is kept, and when the last was done."""
    times = [span for steps in compiled for span in steps.compilation_times()]
    return {
        "compilation_seconds": sum(end - begin for begin, end in times),
        "last_compilation_seconds": max(end for _, end in times) - started,
    }


def describe_compilation(figures: dict) -> str:
    """The same as words, for the log."""
    return (
        f"compiled for {figures['compilation_seconds']:.1f} s, "
        f"the last one done after {figures['last_compilation_seconds']:.1f} s"
    )
