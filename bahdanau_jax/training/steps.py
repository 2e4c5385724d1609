"""The steps that are jitted: one of training, one of evaluation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bahdanau_jax.data.batches import Batch
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.metrics import Metrics, loss_and_metrics
from bahdanau_jax.training.adversarial import (
    NO_SHIFTS,
    Norms,
    gradients,
    labelled_rows,
    virtual_rows,
)
from bahdanau_jax.training.loss import weighted_loss_sum
from bahdanau_jax.training.step_report import StepReport, part_norms

MICROBATCH_ROWS = 64  # measured in docs/performance.md


def train_step(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    batch: Batch,
    *,
    microbatches: int = 1,
    class_weights: Sequence[float] | None = None,
    norms: Norms = NO_SHIFTS,
) -> tuple[nnx.State, StepReport]:
    """One step of gradient descent, as a pure function.

    A step whose loss, gradients or parameters are not finite leaves the state as it was.

    Args:
      graphdef, state: `nnx.split((model, optimizer))`.
      batch: one batch.
      microbatches: parts in which the batch passes through the model, one after the other. Their gradients are
        added, so the step is the same to float32 rounding (dropout draws other masks) and takes the memory of
        one part.
      class_weights: factor of each class's loss, [classes]. The reported loss stays unweighted.
      norms: with one above 0, the loss also counts shifted texts; see adversarial.py. Rows with the label -1
        are texts without a label.
    """
    model, optimizer = nnx.merge(graphdef, state, copy=True)  # `state` stays as it is
    modelgraph, params, rest = nnx.split(model, nnx.Param, ...)
    count = jnp.maximum(jnp.sum(labelled_rows(batch), dtype=jnp.float32), 1)

    def sum_of(logits: jax.Array, part: Batch) -> jax.Array:
        real = labelled_rows(part)
        if class_weights is None:
            return jnp.asarray(loss_and_metrics(logits, part.labels, real)[1].loss_sum)
        return weighted_loss_sum(logits, part.labels, real, jnp.array(class_weights))

    def loss_fn(params, rest, part: Batch):
        model = nnx.merge(modelgraph, params, rest, copy=True)
        logits, _ = model(part.ids)
        loss_sum = sum_of(logits, part)
        metrics = loss_and_metrics(logits, part.labels, part.real)[1]
        return loss_sum / count, (metrics, nnx.state(model, nnx.Not(nnx.Param)))

    def forward(params, rest, ids, shift):
        model = nnx.merge(modelgraph, params, rest, copy=True)
        logits, _ = model(ids, embedded=model.embed(ids) + shift)
        return logits, nnx.state(model, nnx.Not(nnx.Param))

    def with_shifts(params, rest, part: Batch):
        virtual = virtual_rows(batch, norms)
        step_key = jax.random.fold_in(jax.random.key(0), optimizer.step[...])
        embedded = nnx.eval_shape(lambda model, ids: model.embed(ids), model, part.ids)
        return gradients(
            forward,
            sum_of,
            params,
            rest,
            part,
            shift=jnp.zeros(embedded.shape, embedded.dtype),
            norms=norms,
            counts=(count, jnp.maximum(jnp.sum(virtual, dtype=jnp.float32), 1)),
            key=jax.random.fold_in(step_key, part.rows[0]),
        )

    gradient = with_shifts if any(norms) else jax.grad(loss_fn, has_aux=True)
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
    report = StepReport(metrics, loss, part_norms(params), part_norms(grads))
    nnx.update(model, rest)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies floats by its step count
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
    """The number of parts in which a batch passes through the model: `asked`, or with 0 the best known.

    On a CPU a part has 64 rows: its working memory is reused instead of faulting in page by page at every
    step, and 64 rows keep two cores busy. On other platforms the batch stays whole.

    Raises:
      InputError: the batch cannot be split into equal parts on every device.

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
