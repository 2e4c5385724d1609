"""The jitted steps: what they compute, on which devices, and their compilation ahead of time."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from bahdanau_jax.batches import Batch, eval_batches
from bahdanau_jax.ensemble import Ensemble
from bahdanau_jax.errors import InputError
from bahdanau_jax.not_finite import Report, part_norms
from bahdanau_jax.objective import Metrics, loss_and_metrics, weighted_loss_sum

MICROBATCH_ROWS = 64  # measured in docs/performance.md


def train_step(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    batch: Batch,
    *,
    microbatches: int = 1,
    class_weights: Sequence[float] | None = None,
) -> tuple[nnx.State, Report]:
    """One step of gradient descent, a pure function: `graphdef, state = nnx.split((model, optimizer))`.

    With several `microbatches` the batch passes through the model in that many parts, one after the
    other, and their gradients are added: the same step to float32 rounding, but for what dropout draws,
    in the memory of one part. With `class_weights` each loss counts times its class's weight; what is
    reported stays unweighted. A step whose loss, gradients or parameters are not finite leaves the
    state as it was.
    """
    model, optimizer = nnx.merge(graphdef, state, copy=True)  # `state` stays as it is
    modelgraph, params, rest = nnx.split(model, nnx.Param, ...)
    count = jnp.maximum(jnp.sum(batch.real, dtype=jnp.float32), 1)

    def sum_of(logits: jax.Array, part: Batch) -> jax.Array:
        if class_weights is None:
            return jnp.asarray(loss_and_metrics(logits, part.labels, part.real)[1].loss_sum)
        return weighted_loss_sum(logits, part.labels, part.real, jnp.array(class_weights))

    def loss_fn(params, rest, part: Batch):
        model = nnx.merge(modelgraph, params, rest, copy=True)
        if isinstance(model, Ensemble):  # each network learns from its own loss
            separate, _ = model.separate(part.ids)
            loss_sum, logits = sum(sum_of(x, part) for x in separate), jnp.mean(separate, axis=0)
        else:
            logits, _ = model(part.ids)
            loss_sum = sum_of(logits, part)
        metrics = loss_and_metrics(logits, part.labels, part.real)[1]
        return loss_sum / count, (metrics, nnx.state(model, nnx.Not(nnx.Param)))

    gradient = jax.grad(loss_fn, has_aux=True)
    if microbatches == 1:
        grads, (metrics, rest) = gradient(params, rest, batch)
    else:
        # Every n-th row, not n neighbours: each device then has an equal share of each part.
        parts = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0), batch
        )

        def body(carry, part):
            rest, *sums = carry
            grads, (metrics, rest) = gradient(params, rest, part)
            return (rest, *jax.tree.map(jnp.add, sums, [grads, metrics])), None

        zeros = jax.tree.map(jnp.zeros_like, params), Metrics(*[jnp.zeros(())] * 3)
        (rest, grads, metrics), _ = jax.lax.scan(body, (rest, *zeros), parts)
    loss = metrics.loss_sum / count
    report = Report(metrics, loss, part_norms(params), part_norms(grads))
    nnx.update(model, rest)
    optimizer.update(model, grads)
    updated = nnx.state((model, optimizer))
    finite = report.finite
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
    metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0), metrics)
    return state, report._replace(metrics=metrics)


def eval_step(graphdef: nnx.GraphDef, state: nnx.State, batch: Batch) -> tuple[jax.Array, Any]:
    """Logits [batch, outputs] of a model split after `model.eval()`, and the rows they belong to."""
    logits, _ = nnx.merge(graphdef, state)(batch.ids)
    return logits, batch.rows


def choose_microbatches(asked: int, batch_size: int, devices: int) -> int:
    """In how many parts a batch passes through the model: `asked`, or, where that is 0, what suits.

    On a CPU that is parts of 64 rows: their working memory is used over and over instead of faulting in
    page by page at every step, and 64 rows keep two cores busy. Elsewhere the batch stays whole.

    Raises:
      InputError: where the batch cannot be split into equal parts on every device.

    Example:
      >>> choose_microbatches(2, batch_size=256, devices=1)
      2
    """
    if asked:
        if batch_size % (asked * devices):
            raise InputError(
                f"config.microbatches is {asked}; expected a divisor of config.batch_size"
                f" ({batch_size}) / {devices} devices"
            )
        return asked
    if jax.default_backend() != "cpu":
        return 1
    parts = range(max(1, batch_size // MICROBATCH_ROWS), 0, -1)
    return next((n for n in parts if batch_size % (n * devices) == 0), 1)


def make_mesh() -> Mesh:
    """All devices in one row, over which batches are split."""
    # Auto: XLA splits the whole step along the batch by itself.
    return jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def on_every_device(mesh: Mesh, state: Any) -> Any:
    """The state, the same on every device of every process."""
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(state, sharding)

    def put(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                put(jax.random.key_data(x)), impl=jax.random.key_impl(x)
            )
        # Not device_put: it asks the other processes about every single array.
        values = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: values[index])

    return jax.tree.map(put, state)


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
        label_dtype: DTypeLike = np.int32,
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
            batch = Batch(row(np.int32, length), row(label_dtype), row(np.bool_), row(np.int32))
            begun = time.monotonic()
            with jax.set_mesh(mesh):  # a thread has its own
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
