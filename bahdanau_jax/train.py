"""Training and evaluation: the steps, and the run, which reads from top to bottom in one function."""

import datetime
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from bahdanau_jax import console as show
from bahdanau_jax import environment, sources
from bahdanau_jax.batches import (
    Batch,
    eval_batches,
    padding_share,
    plan_epoch,
    steps_per_epoch,
    train_batches,
)
from bahdanau_jax.checkpoint import Checkpoints
from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.errors import InputError
from bahdanau_jax.objective import Metrics, loss_and_metrics, probabilities
from bahdanau_jax.optimizer import make_optimizer
from bahdanau_jax.recorder import Recorder
from bahdanau_jax.text import Vocabulary
from bahdanau_jax.workdir import open_workdir, read_json, validate_config, write_json


def train_step(graphdef: nnx.GraphDef, state: nnx.State, batch: Batch) -> tuple[nnx.State, Metrics]:
    """One step of gradient descent. Pure, for `jax.jit`: `graphdef, state = nnx.split((model, optimizer))`."""
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


def make_mesh() -> jax.sharding.Mesh:
    """All devices in one row, over which batches are split."""
    # Auto: XLA splits the whole step along the batch by itself.
    return jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))


def shard_batches(batches: Iterator[Batch], mesh: jax.sharding.Mesh) -> Iterator[Batch]:
    """Puts each process's share of a batch on its devices, as one array over the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    for batch in batches:
        yield Batch(*(jax.make_array_from_process_local_data(sharding, x) for x in batch))


class Evaluator:
    """Logits of every example of a split, in the split's order, for one model and mesh."""

    def __init__(self, model: nnx.Module, mesh: jax.sharding.Mesh, *, batch_size: int, buckets):
        self._graphdef = nnx.split(nnx.view(model, deterministic=True))[0]
        self._mesh, self._batch_size, self._buckets = mesh, batch_size, buckets
        replicated = NamedSharding(mesh, PartitionSpec())
        self._step = jax.jit(eval_step, static_argnums=0, out_shardings=replicated)

    def __call__(self, model_state: nnx.State, ids: Sequence[np.ndarray]) -> np.ndarray:
        """Returns float32 [n, outputs]."""
        batches = eval_batches(
            ids,
            np.zeros(len(ids), np.int32),
            batch_size=self._batch_size,
            bucket_lengths=self._buckets,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        # Nothing is fetched before the last batch has been handed to the device.
        outputs = [
            self._step(self._graphdef, model_state, batch)
            for batch in shard_batches(batches, self._mesh)
        ]
        logits = np.zeros((len(ids), outputs[0][0].shape[-1]), np.float32)
        for batch_logits, rows in jax.device_get(outputs):
            logits[rows[rows >= 0]] = batch_logits[rows >= 0]
        return logits


def figures_of(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """{"loss", "accuracy", "n"} of a whole split."""
    _, metrics = loss_and_metrics(logits, labels, np.ones(len(labels), bool))
    return mean_of(metrics) | {"n": len(labels)}


def mean_of(metrics: Metrics) -> dict[str, float]:
    """Divides sums by their count, once."""
    loss_sum, correct, count = (float(x) for x in metrics)
    return {"loss": loss_sum / count, "accuracy": correct / count}


def read_dataset(data: ConfigDict, seed: int) -> sources.Dataset:
    """The data set that the config's `data` section names."""
    if data.source == "tfds":
        return sources.load_tfds(
            data.name, data_dir=data.data_dir, validation_size=data.validation_size
        )
    if data.source == "embedded":
        return sources.load_embedded(validation_size=data.validation_size, test_size=data.test_size)
    return sources.make_up(
        train_size=data.train_size,
        validation_size=data.validation_size,
        test_size=data.test_size,
        seed=seed,
    )


def make_model(config: ConfigDict, vocab_size: int, num_classes: int) -> AttentionClassifier:
    """The config's model with fresh weights."""
    return AttentionClassifier(vocab_size, num_classes, rngs=nnx.Rngs(config.seed), **config.model)


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
    """
    validate_config(config)
    workdir = open_workdir(workdir, config)
    console = show.make_console()
    if (workdir / "result.json").exists():
        result = read_json(workdir / "result.json")
        show.show_result(console, result, already_finished=True)
        return result
    started = time.monotonic()

    # Data: text, then ids, then batches.
    dataset = read_dataset(config.data, config.seed)
    vocabulary = Vocabulary.build(dataset.train.texts, size=config.vocab_size)
    vocabulary.save(workdir / "vocabulary.json")
    whole = {
        "train": vocabulary.encode_all(dataset.train.texts),
        "validation": vocabulary.encode_all(dataset.validation.texts),
    }
    lengths = {split: np.array([len(x) for x in ids]) for split, ids in whole.items()}
    data_figures = {
        split: show.data_figures(
            lengths[split], max_length=config.max_length, coverage=show.coverage(ids)
        )
        for split, ids in whole.items()
    }
    ids = {split: [x[-config.max_length :] for x in rows] for split, rows in whole.items()}
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

    # Model and optimizer, the same on every device.
    mesh = make_mesh()
    if config.batch_size % mesh.size:
        raise InputError(
            f"config.batch_size is {config.batch_size}; expected a multiple of the {mesh.size} devices"
        )
    model = make_model(config, len(vocabulary), len(dataset.label_names))
    optimizer = nnx.Optimizer(model, make_optimizer(**config.optimizer), wrt=nnx.Param)
    graphdef, state = nnx.split((model, optimizer))
    replicated = NamedSharding(mesh, PartitionSpec())
    state = jax.device_put(state, replicated)
    jitted_step = jax.jit(
        train_step, static_argnums=0, donate_argnums=1, out_shardings=(replicated, replicated)
    )
    evaluate = Evaluator(model, mesh, batch_size=config.batch_size, buckets=config.bucket_lengths)

    # From here on, as far as the newest checkpoint got.
    with Checkpoints(workdir, keep=config.checkpoint.keep) as checkpoints:
        epoch_steps = steps_per_epoch(len(ids["train"]), config.batch_size)
        total_steps = epoch_steps * config.epochs
        step, train_seconds = 0, 0.0
        restored = checkpoints.restore_latest(state, batches)
        if restored is not None:
            step, state, measured = restored
            train_seconds = measured["train_seconds"]

        with Recorder(workdir, total_steps=total_steps, resume_step=step) as recorder:
            cut = np.minimum(lengths["train"], config.max_length)
            plan = plan_epoch(
                cut, config.batch_size, config.bucket_lengths, np.random.default_rng(0)
            )
            padding = padding_share(cut, plan, config.bucket_lengths)
            show.show_start(
                recorder.console,
                devices=environment.devices(),
                settings={
                    "run folder": str(workdir),
                    "batches": f"{epoch_steps} an epoch of {config.batch_size} reviews, padded to "
                    f"{_listed(config.bucket_lengths)}: {padding:.1%} of positions are padding",
                    "allocation": os.environ.get("GLIBC_TUNABLES") or "as the system has it",
                },
                data_figures=data_figures,
                model=model,
                log=recorder.log,
            )
            if step:
                recorder.note(f"resumed from the checkpoint of step {step} of {total_steps}")

            clock, pending = _Clock(train_seconds), []
            for batch in shard_batches(batches, mesh):
                with jax.transfer_guard("disallow"):  # nothing may slip back to the host
                    state, metrics = jitted_step(graphdef, state, batch)
                step += 1
                pending.append(metrics)
                epoch, end_of_epoch = -(-step // epoch_steps), step % epoch_steps == 0
                save = end_of_epoch or step % config.checkpoint.every_steps == 0
                if save or step % config.log_every_steps == 0:
                    sums = _fetch(pending)
                    pending = []
                    recorder.step(
                        step,
                        epoch=epoch,
                        examples_per_second=float(sums.count) / clock.lap(),
                        **mean_of(sums),
                    )
                else:
                    recorder.advance(step)
                if end_of_epoch:
                    begun = time.monotonic()
                    logits = evaluate(state[0], ids["validation"])
                    recorder.epoch(
                        step,
                        epoch=epoch,
                        split="validation",
                        seconds=time.monotonic() - begun,
                        **figures_of(logits, dataset.validation.labels),
                    )
                if save:
                    checkpoints.save(step, state, batches, {"train_seconds": clock.total})
                    clock.restart()

            # The end: every split as the final model sees it, test among them for the first time.
            test = dataset.read_test()
            examples = {"train": dataset.train, "validation": dataset.validation, "test": test}
            ids["test"] = vocabulary.encode_all(test.texts, max_length=config.max_length)
            splits, lines = {}, []
            for split, rows in examples.items():
                begun = time.monotonic()
                logits = evaluate(state[0], ids[split])
                splits[split] = figures_of(logits, rows.labels)
                if split != "train":
                    lines += _predictions(split, rows, logits)
                recorder.log(f"{split}: evaluated in {time.monotonic() - begun:.1f} s")
            _write_lines(workdir / "predictions.jsonl", lines)
            result = {
                "dataset": dataset.name,
                "test_description": dataset.test_description,
                "splits": splits,
                "seed": config.seed,
                "epochs": config.epochs,
                "steps": step,
                "train_seconds": clock.total,
                "wall_clock_seconds": time.monotonic() - started,
                "parameters": show.parameter_count(model),
                "compilations": jitted_step._cache_size(),  # pyright: ignore[reportAttributeAccessIssue]
                "hardware": environment.hardware(),
                "devices": environment.devices(),
                "versions": environment.versions(),
                "commit": environment.commit(),
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "workdir": str(workdir),
            }
            checkpoints.wait()
            write_json(workdir / "result.json", result)
            show.show_result(recorder.console, result, log=recorder.log)
    return result


class _Clock:
    """Seconds of training, without validation and saving."""

    def __init__(self, total: float):
        self.total, self._last = total, time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap or restart, added to the total."""
        seconds = time.monotonic() - self._last
        self.total += seconds
        self.restart()
        return seconds

    def restart(self) -> None:
        self._last = time.monotonic()


def _fetch(pending: list[Metrics]) -> Metrics:
    fetched = jax.device_get(pending)
    return Metrics(*(float(np.sum(sums, dtype=np.float64)) for sums in zip(*fetched, strict=True)))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _predictions(split: str, examples: sources.Examples, logits: np.ndarray) -> list[str]:
    """One JSON line per review: its id, its label and the probability of each class."""
    return [
        json.dumps({"split": split, "id": name, "label": int(label), "probabilities": p.tolist()})
        for name, label, p in zip(
            examples.ids, examples.labels, np.asarray(probabilities(logits)), strict=True
        )
    ]


def _write_lines(path: Path, lines: list[str]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
