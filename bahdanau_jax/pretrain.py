"""A language model's run, from config to a folder that classifiers start from; it reads from top to bottom."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bahdanau_jax import console as show
from bahdanau_jax import digests, environment
from bahdanau_jax.batches import Batch, eval_batches, steps_per_epoch, train_batches
from bahdanau_jax.checkpoint import Checkpoints
from bahdanau_jax.clock import Clock
from bahdanau_jax.errors import InputError
from bahdanau_jax.language_model import (
    BidirectionalLanguageModel,
    language_model_loss,
    language_model_step,
    word_shares,
)
from bahdanau_jax.lstm import lstm_implementation
from bahdanau_jax.objective import Metrics
from bahdanau_jax.optimizer import make_optimizer
from bahdanau_jax.recorder import Recorder
from bahdanau_jax.self_training import unlabelled_texts
from bahdanau_jax.steps import CompiledAhead, make_mesh, replicated, shard_batches
from bahdanau_jax.stop import Stopped, StopSignals
from bahdanau_jax.text import Vocabulary
from bahdanau_jax.train import add_up, mean_of, read_dataset
from bahdanau_jax.workdir import open_workdir, write_json

VALIDATION_BATCHES = 4  # the softmax over all words is dear, and these settle the loss to 0.01


def pretrain(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains the config's language model on train's and the unlabelled texts, and leaves it in `workdir`.

    Goes on from the newest checkpoint that it finds there. Neither validation's texts, by which classifiers
    are chosen, nor test's are trained on; the former tell the loss over all words at each epoch's end.

    Args:
      config: as made by `experiments/imdb_language_model.py`.
      workdir: the run's folder; a folder of another config's run is refused.

    Returns:
      the result, as written to `workdir/result.json`.

    Raises:
      InputError, DataNotFound, Stopped: as `train.train_and_evaluate`.
    """
    with contextlib.ExitStack() as opened:
        workdir = opened.enter_context(open_workdir(workdir, config, lock=jax.process_index() == 0))
        stop = opened.enter_context(StopSignals())
        console = show.make_console()
        finished = show.show_finished(console, workdir)
        if finished is not None:
            return finished
        started = time.monotonic()
        cache = environment.use_compilation_cache()
        mesh = make_mesh()
        opened.enter_context(jax.set_mesh(mesh))

        # Data: texts, then one stream of ids, then rows of it.
        dataset = read_dataset(config.data, config.seed)
        texts = [*dataset.train.texts, *unlabelled_texts(dataset)]
        vocabulary = Vocabulary.build(texts, size=config.vocab_size, marks=config.marks)
        checkpoints = opened.enter_context(Checkpoints(workdir, keep=config.checkpoint.keep))
        digests.keep_or_compare(
            workdir / "data.json",
            digests.of_data(dataset, vocabulary)
            | {"language model": {"texts": len(texts), "sha256": digests.of_json(texts)}},
            begun=bool(checkpoints.steps()),
        )
        vocabulary.save(workdir / "vocabulary.json")
        rows = cut_stream(vocabulary.encode_all(texts), config.max_length)
        validation_rows = cut_stream(
            vocabulary.encode_all(dataset.validation.texts), config.max_length
        )[: VALIDATION_BATCHES * config.batch_size]
        counts = np.bincount(np.concatenate(rows), minlength=config.vocab_size)
        batches = train_batches(
            rows,
            np.zeros(len(rows), np.int32),
            batch_size=config.batch_size,
            bucket_lengths=config.bucket_lengths,
            epochs=config.epochs,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

        # Model, optimizer and step.
        pool = opened.enter_context(ThreadPoolExecutor(max_workers=1))
        options = config.model.to_dict()
        candidates = options.pop("candidates")
        rngs = nnx.Rngs(config.seed)
        model = BidirectionalLanguageModel(config.vocab_size, rngs=rngs, **options)
        epoch_steps = steps_per_epoch(len(rows), config.batch_size)
        total_steps = epoch_steps * config.epochs
        transformation = make_optimizer(**config.optimizer, total_steps=total_steps)
        optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)
        graphdef, state = nnx.split((model, optimizer))
        state = jax.device_put(state, replicated(mesh))
        shares = word_shares(counts)
        step_fn = CompiledAhead(
            partial(language_model_step, graphdef, shares, candidates),
            state,
            config.bucket_lengths,
            batch_size=config.batch_size,
            mesh=mesh,
            pool=pool,
            donate=True,
        )

        # From here on, as far as the newest checkpoint got.
        step, clock = 0, Clock()
        restored = checkpoints.restore_latest(state, batches)
        if restored is not None:
            step, state, measured = restored
            try:
                clock = Clock(**measured)
            except TypeError as error:
                raise InputError(f"{workdir}/checkpoints/{step} does not fit: {error}") from error
        recorder = opened.enter_context(
            Recorder(workdir, total_steps=total_steps, resume_step=step, console=console)
        )
        lengths = np.array([len(row) for row in rows])
        show.show_start(
            console,
            devices=environment.devices(),
            settings={
                "run folder": str(workdir),
                "recurrence": " (".join(lstm_implementation(config.model.implementation)) + ")",
                "rows": f"of {len(texts):,} texts, {int(lengths.sum()):,} words",
                "compilation": f"{len(step_fn)} batch lengths, kept in {cache}",
            },
            data_figures={
                "train": show.data_figures(
                    lengths, max_length=config.max_length, coverage=show.coverage(rows)
                )
            },
            model=model,
            log=recorder.log,
        )
        for notice in checkpoints.notices:
            recorder.note(f"warning: {notice}")
        if step:
            recorder.note(f"resumed from the checkpoint of step {step} of {total_steps}")

        pending: list[Metrics] = []  # of the steps since the last figures
        figures: dict[str, Any] = {}
        clock.start()
        for batch in stop.each_finished(shard_batches(batches, mesh)):
            state, metrics = step_fn(state, batch)
            step += 1
            pending.append(metrics)
            if clock.first_step is None:
                jax.block_until_ready(metrics)
                clock.first_step = time.monotonic() - started
            epoch, end_of_epoch = -(-step // epoch_steps), step % epoch_steps == 0
            due_save = end_of_epoch or step % config.checkpoint.every_steps == 0
            recorder.advance(step)
            if due_save or stop.asked or step % config.log_every_steps == 0:
                rate = len(pending) * config.batch_size / clock_lap(clock, pending)
                sums, pending = add_up(jax.device_get(pending)), []
                recorder.step(step, epoch=epoch, examples_per_second=rate, **mean_of(sums))
            if end_of_epoch:
                begun = time.monotonic()
                figures = evaluate(graphdef, state, validation_rows, config, mesh)
                seconds = time.monotonic() - begun
                recorder.epoch(step, epoch=epoch, split="validation", seconds=seconds, **figures)
            if due_save or stop.asked:
                checkpoints.save(step, state, batches, clock.measured())
                clock.start()
            if stop.asked:
                checkpoints.wait()
                raise Stopped(f"stopped by {stop.asked} after step {step} of {total_steps}")

        if not figures:  # every step was done before this start
            figures = evaluate(graphdef, state, validation_rows, config, mesh)
        result = {
            "dataset": dataset.name,
            "splits": {"validation": figures},
            "seed": config.seed,
            "epochs": config.epochs,
            "steps": step,
            "wall_clock_seconds": time.monotonic() - started,
            **clock.measured(),
            "parameters": show.parameter_count(model),
            **environment.peak_memory(),
            "recurrence": lstm_implementation(config.model.implementation)[0],
            "devices": environment.devices(),
            **environment.provenance(),
            "workdir": str(workdir),
        }
        checkpoints.wait()
        write_json(workdir / "result.json", result)
        show.show_result(console, result, log=recorder.log)
    return result


def cut_stream(texts: list[np.ndarray], length: int) -> list[np.ndarray]:
    """Joins the texts' ids and cuts them into rows, of which only the last may be shorter.

    Each text begins with START, which tells a model that it is another one.

    Example:
      >>> [row.tolist() for row in cut_stream([np.array([1, 5, 6]), np.array([1, 7])], 2)]
      [[1, 5], [6, 1], [7]]
    """
    stream = np.concatenate(texts)
    return [stream[i : i + length] for i in range(0, len(stream), length)]


def clock_lap(clock: Clock, pending: list[Metrics]) -> float:
    """Seconds of the steps since the last figures, once they are done."""
    jax.block_until_ready(pending)
    return clock.lap()


def evaluate(
    graphdef: nnx.GraphDef, state: nnx.State, rows: list[np.ndarray], config: ConfigDict, mesh: Mesh
) -> dict[str, Any]:
    """{"loss", "accuracy", "n"} of predicting each word of `rows` among all words, from both ends."""
    model, _ = nnx.merge(graphdef, state)
    graphdef, model_state = nnx.split(nnx.view(model, deterministic=True))

    @jax.jit
    def step(model_state: nnx.State, batch: Batch) -> Metrics:
        everything = jnp.arange(config.vocab_size, dtype=jnp.int32)
        none = jnp.zeros(config.vocab_size)
        return language_model_loss(nnx.merge(graphdef, model_state), batch.ids, everything, none)[1]

    batches = eval_batches(
        rows,
        np.zeros(len(rows), np.int32),
        batch_size=config.batch_size,
        bucket_lengths=config.bucket_lengths,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    measured = [step(model_state, batch) for batch in shard_batches(batches, mesh)]
    sums = add_up(jax.device_get(measured))
    return mean_of(sums) | {"n": int(sums.count)}
