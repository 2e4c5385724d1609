"""Steps compiled ahead of time in a background thread, while text becomes ids."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from bahdanau_jax.data.batches import Batch, eval_batches
from bahdanau_jax.models.classifier import for_prediction
from bahdanau_jax.runs import multihost
from bahdanau_jax.training.adversarial import Norms
from bahdanau_jax.training.session import Session
from bahdanau_jax.training.sharding import replicated, shard_batches, split_rows
from bahdanau_jax.training.state import Setup
from bahdanau_jax.training.steps import eval_step, train_step


class Compiled(NamedTuple):
    """The compiled steps of a run.

    Attributes:
      train_step: `state, report = train_step(state, batch)`; donates `state`.
      evaluate: `logits = evaluate(model_state, ids)` of a whole split.
    """

    train_step: "CompiledAhead"
    evaluate: "Evaluator"

    def meet(self) -> None:
        """With several processes, waits until all have compiled: none may wait for another one in a step."""
        if jax.process_count() > 1:
            self.train_step.compilation_times()
            self.evaluate.compilation_times()
            multihost.meet()

    def figures(self, started: float) -> dict[str, float]:
        """Seconds spent on compilation (or on reading it from the cache), and when the last one was done."""
        times = [*self.train_step.compilation_times(), *self.evaluate.compilation_times()]
        return {
            "compilation_seconds": sum(end - begin for begin, end in times),
            "last_compilation_seconds": max(end for _, end in times) - started,
        }


def compile_ahead(run: Session, setup: Setup) -> Compiled:
    """Starts to compile the training step and the evaluation step for each batch length."""
    config = run.config
    step = partial(
        train_step,
        setup.graphdef,
        microbatches=run.microbatches,
        class_weights=setup.class_weights,
        norms=Norms(config.adversarial.norm, config.adversarial.virtual_norm),
    )
    lengths, batch_size = config.bucket_lengths, config.batch_size
    where: Any = dict(mesh=run.mesh, pool=run.pool)
    return Compiled(
        CompiledAhead(step, setup.state, lengths, batch_size=batch_size, donate=True, **where),
        Evaluator(setup.model, lengths, batch_size=batch_size // run.microbatches, **where),
    )


class CompiledAhead:
    """A step that is compiled for each batch length in the background.

    Call it as the step: `step(state, batch)`. It waits for the compilation of that length.
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
            if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
                self._times.append((begun, begun))
                return step
            with jax.set_mesh(mesh):  # a thread has its own
                compiled = jitted.lower(abstract, batch).compile()
            self._times.append((begun, time.monotonic()))
            return compiled

        self._times: list[tuple[float, float]] = []
        self._compiled: dict[int, Future] = {n: pool.submit(compile_for, n) for n in lengths}

    def __call__(self, state: Any, batch: Batch) -> Any:
        guard = "allow" if jax.config.jax_disable_jit else "disallow"  # pyright: ignore[reportAttributeAccessIssue]
        with jax.transfer_guard(guard):  # nothing may slip back to the host
            return self._compiled[batch.ids.shape[1]].result()(state, batch)

    def __len__(self) -> int:
        return len(self._compiled)

    def compilation_times(self) -> list[tuple[float, float]]:
        """When each compilation began and ended, by `time.monotonic()`."""
        for compiled in self._compiled.values():
            compiled.result()
        return self._times


class Evaluator:
    """Logits of every text of a split, in the split's order, without dropout."""

    def __init__(
        self,
        model: nnx.Module,
        lengths: Sequence[int],
        *,
        batch_size: int,
        mesh: Mesh,
        pool: ThreadPoolExecutor,
    ):
        view = nnx.view(model, deterministic=True, raise_if_not_found=False)
        trained = nnx.graphdef(view)

        def prepare(state: nnx.State) -> nnx.State:
            return nnx.state(for_prediction(nnx.merge(trained, state)))

        self._lengths, self._batch_size, self._mesh = lengths, batch_size, mesh
        self._prepare = jax.jit(prepare, out_shardings=replicated(mesh))
        with jax.set_mesh(mesh):
            faster = nnx.eval_shape(lambda: for_prediction(view))
        self._step = CompiledAhead(
            partial(eval_step, nnx.graphdef(faster)),
            nnx.state(faster),
            lengths,
            batch_size=batch_size,
            mesh=mesh,
            pool=pool,
            donate=False,
        )

    def compilation_times(self) -> list[tuple[float, float]]:
        """As `CompiledAhead.compilation_times`."""
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
        with jax.set_mesh(self._mesh):
            state = self._prepare(model_state)
        # All batches go to the device before anything is fetched.
        outputs = [self._step(state, batch) for batch in shard_batches(batches, self._mesh)]
        logits = np.zeros((len(ids), outputs[0][0].shape[-1]), np.float32)
        for batch_logits, rows in jax.device_get(outputs):
            logits[rows[rows >= 0]] = batch_logits[rows >= 0]
        return logits
