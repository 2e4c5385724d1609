"""Trains a language model, for classifiers to start from."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array
from ml_collections import ConfigDict
from rich.console import Console

from bahdanau_jax.data.batches import Batch, eval_batches, steps_per_epoch, train_batches
from bahdanau_jax.data.find_tokenizer import check_tokenizer
from bahdanau_jax.data.token_store import EncodedTexts
from bahdanau_jax.errors import InputError
from bahdanau_jax.models.language_model import LanguageModel
from bahdanau_jax.recipes.all_texts import read_all_texts
from bahdanau_jax.runs import console as show
from bahdanau_jax.runs import environment, fingerprints, multihost
from bahdanau_jax.runs.checkpoint_checks import complete_steps
from bahdanau_jax.runs.checkpoints import Checkpoints
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.language_model_config import LanguageModelConfig
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.runs.preemption import Stopped, StopSignals
from bahdanau_jax.runs.safe_files import write_json
from bahdanau_jax.training.compile import CompiledAhead
from bahdanau_jax.training.optimizer import make_optimizer
from bahdanau_jax.training.sharding import make_mesh, on_every_device, shard_batches

_REPORTS = 20  # lines in each epoch
_EVALUATION_ROWS = 16  # logits of 16 x 400 words against 30,000 take 770 MB


def train_language_model(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains a language model; `workdir` keeps its checkpoints, from which a classifier's `init_from` reads.

    A run that was stopped resumes to the same bits. Validation and test texts are not trained on; the
    perplexity is measured on validation.

    Args:
      config: as made by `experiments/imdb_language_model.py`.
      workdir: the run's folder; a folder that holds a run of another config is refused.

    Returns:
      the result, as written to `workdir/result.json`.

    Raises:
      InputError: the config, the folder or the data is not as expected.
      DataNotFound: the data set is neither prepared nor reachable.
      Stopped: a signal asked to stop; the step was finished and saved.
    """
    multihost.check_alone("a language model")
    settings = parse_config(config)
    if not isinstance(settings, LanguageModelConfig):
        raise InputError("config.task is missing; expected 'language_model'")
    check_tokenizer(settings.tokenizer.name, settings.tokenizer.options)
    make_optimizer(**settings.optimizer.model_dump(), total_steps=1)
    with open_workdir(workdir, settings.model_dump()) as folder, StopSignals() as stop:
        console = show.make_console()
        finished = show.show_finished(console, folder)
        if finished is not None:
            return finished
        environment.use_compilation_cache()
        started = time.monotonic()
        texts, held_out = _read(settings, folder)
        counts = np.bincount(texts.values, minlength=settings.vocab_size)
        model = LanguageModel(counts, **settings.model.model_dump(), rngs=nnx.Rngs(settings.seed))
        parameters = show.parameter_count(model)
        console.print(
            f"{len(texts):,} pieces, {len(texts.values):,} words, {parameters:,} parameters",
            style="bold",
        )
        begun = time.monotonic()
        steps, history = _train(settings, model, texts, held_out, folder, stop, console)
        result = {
            "dataset": settings.data.name,
            "splits": {},  # of a classifier
            "seed": settings.seed,
            "words": len(texts.values),
            "epochs": settings.epochs,
            "steps": steps,
            "perplexities": history,  # on validation, after each epoch
            "parameters": parameters,
            "train_seconds": time.monotonic() - begun,  # since the last start
            "wall_clock_seconds": time.monotonic() - started,
            **environment.peak_memory(),
            **environment.provenance(),
            "workdir": str(folder),
        }
        write_json(folder / "result.json", result)
        show.show_result(console, result)
    return result


def _read(settings: LanguageModelConfig, folder: Path) -> tuple[EncodedTexts, EncodedTexts]:
    """Training texts and some of validation as pieces; keeps the vocabulary and the data's digests."""
    dataset, texts, vocabulary, digests = read_all_texts(settings)
    begun = bool(complete_steps(folder / "checkpoints"))
    fingerprints.keep_or_compare(folder / "data.json", digests, begun=begun)
    vocabulary.save(folder / "vocabulary.json")
    held_out = list(dataset.validation.texts)[: settings.perplexity_texts]
    train, validation = (
        vocabulary.gather(some, folder).pieces(settings.max_length) for some in (texts, held_out)
    )
    return train, validation


def _train(
    settings: LanguageModelConfig,
    model: LanguageModel,
    texts: EncodedTexts,
    held_out: EncodedTexts,
    folder: Path,
    stop: StopSignals,
    console: Console,
) -> tuple[int, list[float]]:
    """Trains the model, from the latest checkpoint on; returns the steps and each epoch's perplexity."""
    mesh, size = make_mesh(), settings.batch_size
    if size % mesh.size:
        raise InputError(
            f"config.batch_size is {size}; expected a multiple of the {mesh.size} devices"
        )
    epoch_steps = steps_per_epoch(len(texts), size)
    last = epoch_steps * settings.epochs
    rule = make_optimizer(**settings.optimizer.model_dump(), total_steps=last)
    optimizer = nnx.Optimizer(model, rule, wrt=nnx.Param)
    graphdef, state = nnx.split((model, optimizer))
    state = on_every_device(mesh, state)
    batches = train_batches(
        texts,
        np.zeros(len(texts), np.int32),
        batch_size=size,
        bucket_lengths=settings.bucket_lengths,
        epochs=settings.epochs,
        seed=settings.seed,
    )
    step = partial(train_step, graphdef, candidates=settings.candidates, seed=settings.seed)
    with Checkpoints(folder) as checkpoints, ThreadPoolExecutor(1) as pool, jax.set_mesh(mesh):
        compiled = CompiledAhead(
            step, state, settings.bucket_lengths, batch_size=size, mesh=mesh, pool=pool, donate=True
        )
        done, history = 0, []
        restored = checkpoints.restore_latest(state, batches)
        show.show_warnings(console, checkpoints.notices)
        if restored is not None:
            done, state, history = restored[0], restored[1], restored[2]["perplexities"]
            console.print(f"resumed from the checkpoint of step {done:,} of {last:,}")
        begun, first, losses = time.monotonic(), done, []
        for batch in stop.each_finished(shard_batches(batches, mesh)):
            state, loss = compiled(state, batch)
            done, ends_epoch = done + 1, (done + 1) % epoch_steps == 0
            losses.append(loss)
            if ends_epoch or done % max(1, epoch_steps // _REPORTS) == 0:
                mean, losses = float(np.mean(jax.device_get(losses))), []
                left = (time.monotonic() - begun) / (done - first) * (last - done)
                console.print(
                    f"step {done:,} of {last:,}  loss {mean:.4f}  {show.format_seconds(left)} left"
                )
                environment.return_freed_memory()
            if ends_epoch:
                nnx.update((model, optimizer), state)
                if done == last:  # the same model, in the form that a classifier reads
                    model.embedding.embedding[...] = model.vectors()
                    state = nnx.state((model, optimizer))
                history = [*history, perplexity_of(model, held_out, settings.bucket_lengths)]
                console.print(f"epoch {len(history)}  perplexity {history[-1]:.1f} on validation")
            asked = stop.asked_after_step()
            if ends_epoch or asked or done % settings.save_every_steps == 0:
                checkpoints.save(done, state, batches, {"perplexities": history})
            if asked:
                checkpoints.wait()
                raise Stopped(f"stopped by {asked} after step {done:,} of {last:,}")
        nnx.update((model, optimizer), state)
    return done, history


def train_step(
    graphdef: nnx.GraphDef, state: nnx.State, batch: Batch, *, candidates: int, seed: int
) -> tuple[nnx.State, Array]:
    """One step of gradient descent, as a pure function; returns the state and the sampled loss."""
    model, optimizer = nnx.merge(graphdef, state, copy=True)
    key = jax.random.fold_in(jax.random.key(seed), optimizer.step[...])

    def loss_of(model: LanguageModel) -> Array:
        return model.sampled_loss(batch.ids, candidates=candidates, key=key)

    loss, grads = nnx.value_and_grad(loss_of)(model)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies floats by its step count
        optimizer.update(model, grads)
    return nnx.state((model, optimizer)), loss


def perplexity_of(model: LanguageModel, ids: EncodedTexts, bucket_lengths: Any) -> float:
    """exp of the mean cross-entropy of all words of the texts, from both sides."""
    evaluated = nnx.view(model, deterministic=True, raise_if_not_found=False)
    graphdef, state = nnx.split(evaluated)
    batches = eval_batches(
        ids,
        np.zeros(len(ids), np.int32),
        batch_size=_EVALUATION_ROWS,
        bucket_lengths=bucket_lengths,
    )
    total = count = 0.0
    for batch in batches:
        mean, n = jax.device_get(_loss_of(graphdef, state, batch.ids))
        total, count = total + float(mean) * int(n), count + int(n)
    return math.exp(min(total / max(count, 1), 700))


@partial(jax.jit, static_argnums=0)  # compiled once, not in each epoch
def _loss_of(graphdef: nnx.GraphDef, state: nnx.State, ids: Array) -> tuple[Array, Array]:
    return nnx.merge(graphdef, state).loss(ids)
