"""Between the data and the first step: restore or fit, and the table that a run prints."""

import os
from typing import Any

import grain
from flax import nnx

from bahdanau_jax.layers.recurrence import lstm_implementation
from bahdanau_jax.runs import console as show
from bahdanau_jax.runs import environment
from bahdanau_jax.training.compile import Compiled
from bahdanau_jax.training.inputs import Tokenized
from bahdanau_jax.training.metric_writer import MetricWriter
from bahdanau_jax.training.progress import Progress
from bahdanau_jax.training.session import Session
from bahdanau_jax.training.sharding import on_every_device
from bahdanau_jax.training.state import Setup


def restore_or_fit(
    run: Session, setup: Setup, data: Tokenized, batches: grain.DatasetIterator
) -> tuple[Any, Progress, list[str]]:
    """The latest checkpoint, or the first state of a run, with `fit_before_training` done if the model has it.

    Args:
      batches: the training batches; moved to the position of the checkpoint.

    Returns:
      state, progress and lines for the log.

    Raises:
      InputError: every checkpoint is damaged, or of other shapes.
    """
    restored = run.checkpoints.restore_latest(setup.state, batches)
    notes = [f"warning: {notice}" for notice in run.checkpoints.notices]
    if restored is not None:
        step, state, measured = restored
        progress = Progress.from_json(step, measured, f"{run.workdir}/checkpoints/{step}")
        notes.append(f"resumed from the checkpoint of step {step} of {setup.total_steps}")
        return state, progress, notes
    if not hasattr(setup.model, "fit_before_training"):
        return setup.state, Progress(), notes
    notes.append(setup.model.fit_before_training(*data.texts_once()))
    state = nnx.state((setup.model, setup.optimizer))
    return on_every_device(run.mesh, state), Progress(), notes


def show_start(
    run: Session,
    setup: Setup,
    compiled: Compiled,
    data: Tokenized,
    progress: Progress,
    notes: list[str],
) -> None:
    """Opens the run's metric files and prints devices, settings, data and layers."""
    config = run.config
    if run.first:
        run.open_writer(
            MetricWriter(
                run.workdir,
                total_steps=setup.total_steps,
                resume_step=progress.step,
                console=run.console,
            )
        )
    model = config.model
    implementation = lstm_implementation(
        model.implementation, dtype=model.dtype, hidden_features=model.hidden_features
    )
    counts, parts = setup.class_counts, run.microbatches
    show.show_start(
        run.console,
        devices=environment.devices(),
        settings={
            "run folder": str(run.workdir),
            "classes": show.describe_classes(data.dataset.label_names, counts, setup.class_weights),
            "recurrence": " (".join(implementation) + ")",
            "batches": data.describe_batches(),
            "microbatches": f"{parts} of {config.batch_size // parts} reviews",
            "allocation": os.environ.get("GLIBC_TUNABLES") or "system default",
            "compilation": f"{len(compiled.train_step)} batch lengths, cached in {run.cache}",
        },
        data_figures={
            split: show.data_figures(
                whole.lengths, max_length=config.max_length, coverage=show.coverage(whole)
            )
            for split, whole in data.whole.items()
        },
        model=setup.model,
        log=run.writer.log,
    )
    for note in notes:
        run.writer.note(note)
    if progress.step < setup.total_steps:
        run.writer.advance(progress.step)
