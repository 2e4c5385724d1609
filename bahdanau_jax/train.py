"""A run, from config to result; the main function reads from top to bottom."""

import contextlib
import math
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from bahdanau_jax import console as show
from bahdanau_jax import digests, environment, processes, sources
from bahdanau_jax.batches import (
    eval_batches,
    padding_share,
    plan_epoch,
    rows_of_step,
    steps_per_epoch,
    train_batches,
)
from bahdanau_jax.checkpoint import Checkpoints
from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.ensemble import Ensemble, make_classifier
from bahdanau_jax.errors import InputError
from bahdanau_jax.kept_reviews import write_reviews
from bahdanau_jax.lstm import lstm_implementation
from bahdanau_jax.not_finite import Report, Watch, checked_before, part_names
from bahdanau_jax.objective import (
    Metrics,
    class_weights,
    loss_and_metrics,
    predicted_class,
    probabilities,
)
from bahdanau_jax.optimizer import make_optimizer
from bahdanau_jax.own_data import load_files
from bahdanau_jax.predictions import write_predictions
from bahdanau_jax.pretrained import read_vocabulary, start_from
from bahdanau_jax.progress import Progress
from bahdanau_jax.recorder import Recorder, Silent
from bahdanau_jax.recurrence import kernel_obstacle
from bahdanau_jax.self_training import unlabelled_texts, with_soft_labels
from bahdanau_jax.significance import bootstrap_interval
from bahdanau_jax.steps import (
    CompiledAhead,
    Evaluator,
    choose_microbatches,
    compilation_figures,
    describe_compilation,
    make_mesh,
    on_every_device,
    shard_batches,
    train_step,
)
from bahdanau_jax.stop import Stopped, StopSignals
from bahdanau_jax.text import Vocabulary
from bahdanau_jax.workdir import open_workdir, validate_config, write_json


def figures_of(logits: np.ndarray, examples: sources.Examples) -> dict[str, Any]:
    """{"loss", "accuracy", "n"} of a whole split."""
    n = len(examples)
    return mean_of(loss_and_metrics(logits, examples.labels, np.ones(n, bool))[1]) | {"n": n}


def figures_with_interval(logits: np.ndarray, examples: sources.Examples) -> dict[str, Any]:
    """`figures_of` a split that was not trained on, and the accuracy's 95% interval over its reviews."""
    correct = np.asarray(predicted_class(logits)) == examples.labels
    return figures_of(logits, examples) | {"interval": list(bootstrap_interval(correct))}


def figures_of_splits(
    logits: dict[str, np.ndarray], examples: dict[str, sources.Examples]
) -> dict[str, dict[str, Any]]:
    """Of each split, with an interval for all but train: the model has seen that one."""
    return {
        split: (figures_of if split == "train" else figures_with_interval)(found, examples[split])
        for split, found in logits.items()
    }


def mean_of(metrics: Metrics) -> dict[str, float]:
    """Divides sums by their count, once; without examples nothing is known, and both are NaN."""
    loss_sum, correct, count = (float(x) for x in metrics)
    count = count or math.nan
    return {"loss": loss_sum / count, "accuracy": correct / count}


def read_dataset(data: ConfigDict, seed: int) -> sources.Dataset:
    """The data set that the config's `data` section names."""
    sizes = dict(validation_size=data.validation_size, test_size=data.test_size)
    if data.source == "tfds":
        names = dict(text=data.text, label=data.label)
        return sources.load_tfds(data.name, data_dir=data.data_dir, **sizes, **names)
    if data.source == "files":
        return load_files(
            data.path,
            validation_path=data.validation_path,
            test_path=data.test_path,
            text=data.text,
            label=data.label,
            **sizes,
        )
    if data.source == "embedded":
        return sources.load_embedded(**sizes)
    if data.source == "rotten_tomatoes":
        return sources.load_rotten_tomatoes(**sizes)
    return sources.make_up(train_size=data.train_size, **sizes, seed=seed)


def make_model(config: ConfigDict, num_classes: int) -> AttentionClassifier | Ensemble:
    """The config's model with fresh weights."""
    rngs = nnx.Rngs(config.seed)
    return make_classifier(config.vocab_size, num_classes, rngs=rngs, **config.model)


def fit_linear(
    state: nnx.State,
    model: Ensemble,
    ids: Sequence[np.ndarray],
    labels: np.ndarray,
    unlabelled: Sequence[np.ndarray],
    config: ConfigDict,
) -> str | None:
    """Fits the ensemble's linear model of n-grams, if it has one, and puts it into the state; says how."""
    if model.ngrams is None:
        return None
    # Imported here: scikit-learn takes a second, which other runs need not wait for.
    from bahdanau_jax.nb_svm import fit_ngrams

    sizes = dict(batch_size=config.batch_size, bucket_lengths=config.bucket_lengths)
    begun = time.monotonic()
    fitted, choice = fit_ngrams(
        eval_batches(ids, labels, **sizes),
        n=model.ngrams.n,
        rows=model.ngrams.rows,
        outputs=model.ngrams.bias.shape[0],
        unlabelled=eval_batches(unlabelled, np.zeros(len(unlabelled), np.int32), **sizes),
    )
    for name, values in fitted._asdict().items():
        variable = state["ngrams"][name]
        variable[...] = jax.device_put(values, variable[...].sharding)
    return (
        f"linear model: {np.count_nonzero(fitted.squared_scales):,} rows of n-grams in at least "
        f"{choice.min_texts} texts, C {choice.c:g}"
        + (f", counted in {len(unlabelled):,} texts without labels too" if len(unlabelled) else "")
        + f"; fitted in {time.monotonic() - begun:.1f} s"
    )


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains the config's model, evaluates it, and leaves all of it in `workdir`.

    Goes on from the newest checkpoint that it finds there. The test split is read once, at the end.

    Args:
      config: as made by a file of `experiments/`.
      workdir: the run's folder; a folder of another config's run is refused.

    Returns:
      the result, as written to `workdir/result.json`.

    Raises:
      InputError: for what a user can mend, in one line.
      DataNotFound: where the data set is neither prepared nor reachable.
      Stopped: by SIGTERM or SIGINT; what was done is saved and the same call goes on from there.
    """
    validate_config(config)
    kernel = kernel_obstacle(config.model.implementation, config.model.dtype) is None
    environment.use_host_devices(config.host_devices, batch_size=config.batch_size, kernel=kernel)
    with contextlib.ExitStack() as opened:
        first = processes.is_first()
        if config.teacher:
            processes.check_alone("config.teacher")
        if not first:
            processes.any_of(False)  # the first one opens the folder
        workdir = opened.enter_context(open_workdir(workdir, config, lock=first))
        if first:
            processes.any_of(False)
        stop = opened.enter_context(StopSignals(jax.process_count()))
        console = show.make_console(None if first else opened.enter_context(open(os.devnull, "w")))
        finished = show.show_finished(console, workdir)
        if finished is not None:
            return finished
        started = time.monotonic()
        cache = environment.use_compilation_cache()
        mesh = make_mesh()
        opened.enter_context(jax.set_mesh(mesh))
        if config.batch_size % mesh.size:
            raise InputError(
                f"config.batch_size is {config.batch_size}; expected a multiple of the {mesh.size} devices"
            )
        microbatches = choose_microbatches(config.microbatches, config.batch_size, mesh.size)
        dataset = read_dataset(config.data, config.seed)
        labelled = dataset.train
        if config.teacher:  # train then holds the others too, behind these
            dataset = with_soft_labels(dataset, config.teacher, workdir / "soft_labels.json")

        # Model and optimizer, the same on every device; compiled in threads while text becomes ids.
        pool = ThreadPoolExecutor(max_workers=1)
        opened.callback(pool.shutdown, wait=False, cancel_futures=True)
        model = make_model(config, len(dataset.label_names))
        if config.init_from:
            networks = model.members if isinstance(model, Ensemble) else [model]
            start_from(config.init_from, *networks)
        epoch_steps = steps_per_epoch(len(dataset.train), config.batch_size)
        total_steps = epoch_steps * config.epochs
        transformation = make_optimizer(**config.optimizer, total_steps=total_steps)
        optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)
        graphdef, state = nnx.split((model, optimizer))
        state = on_every_device(mesh, state)
        sizes = dict(batch_size=config.batch_size, mesh=mesh, pool=pool)
        counts = np.bincount(labelled.labels, minlength=len(dataset.label_names))
        weights = class_weights(counts) if config.class_weights else None
        step = partial(train_step, graphdef, microbatches=microbatches, class_weights=weights)
        step_fn = CompiledAhead(
            step,
            state,
            config.bucket_lengths,
            **sizes,
            donate=True,
            label_dtype=np.float32 if config.teacher else np.int32,
        )
        sizes["batch_size"] //= microbatches
        evaluate = Evaluator(model, config.bucket_lengths, **sizes)

        # Data: text, then ids, then batches.
        if config.init_from:
            vocabulary = read_vocabulary(config.init_from, config.vocab_size, config.marks)
        else:
            vocabulary = Vocabulary.build(
                dataset.train.texts, size=config.vocab_size, marks=config.marks
            )
        processes.meet()
        checkpoints = opened.enter_context(Checkpoints(workdir, keep=config.checkpoint.keep))
        data = digests.of_data(dataset, vocabulary)
        processes.check_same("the data", digests.of_json(data))
        if first:
            begun = bool(checkpoints.steps())
            digests.keep_or_compare(workdir / "data.json", data, begun=begun)
            vocabulary.save(workdir / "vocabulary.json")
        whole = {
            "train": vocabulary.gather(dataset.train.texts, workdir),
            "validation": vocabulary.gather(dataset.validation.texts, workdir),
        }
        lengths = {split: rows.lengths for split, rows in whole.items()}
        ids = {split: rows.last(config.max_length) for split, rows in whole.items()}
        batches = train_batches(
            ids["train"],
            dataset.train.labels,
            batch_size=config.batch_size,
            bucket_lengths=config.bucket_lengths,
            epochs=config.epochs,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

        # From here on, as far as the newest checkpoint got.
        step, progress = 0, Progress()
        restored = checkpoints.restore_latest(state, batches)
        if restored is not None:
            step, state, measured = restored
            progress = Progress.from_json(measured, f"{workdir}/checkpoints/{step}")
        clock, pending = progress.clock, progress.pending

        linear = None
        if isinstance(model, Ensemble) and restored is None:
            others = unlabelled_texts(dataset, "config.unlabelled") if config.unlabelled else []
            # By true labels alone: by soft ones too it was worse, also for the ensemble.
            linear = fit_linear(
                state[0],
                model,
                ids["train"][: len(labelled)],
                labelled.labels,
                vocabulary.gather(others, workdir).last(config.max_length),
                config,
            )

        recorder = Silent()
        if first:
            recorder = Recorder(workdir, total_steps=total_steps, resume_step=step, console=console)
            opened.enter_context(recorder)
        show.show_start(
            console,
            devices=environment.devices(),
            settings={
                "run folder": str(workdir),
                "classes": show.describe_classes(dataset.label_names, counts, weights),
                "recurrence": " (".join(lstm_implementation(config.model.implementation)) + ")",
                "batches": describe_batches(lengths["train"], config),
                "microbatches": f"{microbatches} of {config.batch_size // microbatches} reviews",
                "allocation": os.environ.get("GLIBC_TUNABLES") or "as the system has it",
                "compilation": f"{len(step_fn)} batch lengths, kept in {cache}",
            },
            data_figures={
                split: show.data_figures(
                    lengths[split], max_length=config.max_length, coverage=show.coverage(rows)
                )
                for split, rows in whole.items()
            },
            model=model,
            log=recorder.log,
        )
        for notice in checkpoints.notices:
            recorder.note(f"warning: {notice}")
        if linear:
            recorder.note(linear)
        if step:
            recorder.note(f"resumed from the checkpoint of step {step} of {total_steps}")

        def review_ids(step: int) -> Sequence[str]:
            cut = np.minimum(lengths["train"], config.max_length)
            buckets = dict(batch_size=config.batch_size, bucket_lengths=config.bucket_lengths)
            rows = rows_of_step(cut, step, **buckets, seed=config.seed)
            return dataset.train.take(rows).ids

        watch = Watch(
            part_names(nnx.state(model, nnx.Param)),
            max_skipped=config.max_skipped_steps,
            skipped=progress.skipped_steps,
            review_ids=review_ids,
            workdir=workdir,
        )

        def fetch(step: int, reports: list[Report]) -> list[Report]:
            fetched = jax.device_get(reports)
            for note in watch.check(step, fetched):
                recorder.note(note)
            return fetched

        def record(step: int, epoch: int, reports: list[Report]) -> None:
            sums = add_up(report.metrics for report in fetch(step, reports))
            rate = float(sums.count) / clock.lap()
            recorder.step(step, epoch=epoch, examples_per_second=rate, **mean_of(sums))

        if jax.process_count() > 1:  # none may wait for what another one still compiles
            compilation_figures((step_fn, evaluate), started)
            processes.meet()
        due = None  # figures to fetch while the device is at the step after them
        saved = time.monotonic()
        clock.start()
        if step < total_steps:
            recorder.advance(step)
        newest: Report | None = None  # of the steps handed to the device

        def device_is_busy() -> bool:
            return not all(x.is_ready() for x in jax.tree.leaves(newest))

        ready = clock.waiting_for(shard_batches(batches, mesh), device_is_busy)
        for batch in stop.each_finished(ready):
            with jax.transfer_guard("disallow"):  # nothing may slip back to the host
                state, report = step_fn(state, batch)
            if due is not None:
                due = record(*due)
            step += 1
            newest = report
            pending.append(report)
            if clock.first_step is None:
                jax.block_until_ready(report)
                clock.first_step = time.monotonic() - started
            epoch, end_of_epoch = -(-step // epoch_steps), step % epoch_steps == 0
            due_save = end_of_epoch or step % config.checkpoint.every_steps == 0
            stopping = stop.asked_after_step()
            figures_due = due_save or step % config.log_every_steps == 0
            if figures_due and config.checkpoint.every_minutes:
                minutes = (time.monotonic() - saved) / 60
                due_save |= bool(processes.first_says(minutes >= config.checkpoint.every_minutes))
            save = due_save or stopping
            recorder.advance(step)
            if figures_due:
                due, pending = (step, epoch, pending), []
            if save and due is not None:
                due = record(*due)  # what is measured must stand before the checkpoint does
            if end_of_epoch:
                begun = time.monotonic()
                figures = figures_of(evaluate(state[0], ids["validation"]), dataset.validation)
                seconds = time.monotonic() - begun
                recorder.epoch(step, epoch=epoch, split="validation", seconds=seconds, **figures)
                progress.compare({"step": step, "epoch": epoch, **figures})
            if save:
                if pending:  # stopped between two figures: a run that goes on completes the second
                    pending = [checked_before(x.metrics) for x in fetch(step, pending)]
                    clock.pause()
                progress.pending, progress.skipped_steps = pending, watch.skipped
                measured = progress.to_json()
                with clock.saving():
                    checkpoints.save(step, state, batches, measured, best_step=progress.best_step)
                saved = time.monotonic()
            if stopping:
                checkpoints.wait()
                raise Stopped(f"stopped by {stopping} after step {step} of {total_steps}")
        compilation = compilation_figures((step_fn, evaluate), started)
        recorder.note(f"{clock}; {describe_compilation(compilation)}")

        # The end: every split as the final model sees it, test among them for the first time.
        test = dataset.read_test()
        whole["test"] = vocabulary.gather(test.texts, workdir)
        ids["test"] = whole["test"].last(config.max_length)
        ids["train"] = ids["train"][: len(labelled)]
        examples = {"train": labelled, "validation": dataset.validation, "test": test}
        logits = {split: evaluate(state[0], ids[split]) for split in examples}
        if first:
            write_predictions(
                workdir / "predictions.jsonl",
                {split: (examples[split], logits[split]) for split in ("validation", "test")},
                words={split: whole[split].lengths - 1 for split in ("validation", "test")},
            )
            write_reviews(workdir, test, np.asarray(probabilities(logits["test"])))
        result = {
            "dataset": dataset.name,
            "label_names": list(dataset.label_names),
            "test_description": dataset.test_description,
            "splits": figures_of_splits(logits, examples),
            "seed": config.seed,
            "epochs": config.epochs,
            "steps": step,
            "skipped_steps": watch.skipped,
            "best": progress.best,
            "wall_clock_seconds": time.monotonic() - started,
            **clock.measured(),
            "parameters": show.parameter_count(model),
            **environment.peak_memory(),
            "compilations": len(step_fn),
            **compilation,
            "recurrence": lstm_implementation(config.model.implementation)[0],
            "devices": environment.devices(),
            "processes": jax.process_count(),
            **environment.provenance(),
            "workdir": str(workdir),
        }
        checkpoints.wait()
        if first:
            write_json(workdir / "result.json", result)
        if jax.process_count() > 1:  # a checkpoint is read by all processes or by one that is alone
            recorder.note(f"python -m experiments.report --workdir={workdir} makes the report")
        else:
            add_report(workdir, recorder)
        show.show_result(console, result, log=recorder.log)
    return result


def add_report(workdir: Path, recorder: Recorder | Silent) -> None:
    """Makes report.html and calibration.json; the run is finished without them, so no fault may end it."""
    begun = time.monotonic()
    try:
        from bahdanau_jax.report import (
            make_report,
        )  # matplotlib and Jinja, which training does without

        file = make_report(workdir)
        recorder.note(f"report in {file} ({show.format_seconds(time.monotonic() - begun)})")
    except Exception as error:
        message = " ".join(str(error).split()) or "no message"
        recorder.note(f"warning: there is no report ({type(error).__name__}: {message[:300]})")


def describe_batches(lengths: np.ndarray, config: ConfigDict) -> str:
    """How many batches an epoch has, of what lengths, and how much of them is padding."""
    cut = np.minimum(lengths, config.max_length)
    buckets, rng = config.bucket_lengths, np.random.default_rng(0)
    plan = plan_epoch(cut, config.batch_size, buckets, rng)
    return (
        f"{len(plan)} an epoch of {config.batch_size} reviews, padded to "
        f"{', '.join(map(str, buckets))}: {padding_share(cut, plan, buckets):.1%} of positions"
    )


def add_up(metrics: Iterable[Metrics]) -> Metrics:
    """The sums of several steps, in float64."""
    return Metrics(*map(float, np.array(list(metrics), np.float64).sum(axis=0)))
