"""Trains a network that translates, and measures it."""

import itertools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict
from rich.console import Console

from bahdanau_jax.data.pairs import TOKENIZERS, PairData, Pairs, batches, load_pairs
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.translation import figures
from bahdanau_jax.interop.safetensors import read_safetensors, save_safetensors
from bahdanau_jax.models.seq2seq import Seq2Seq
from bahdanau_jax.report.alignment import draw_alignment
from bahdanau_jax.runs import console as show
from bahdanau_jax.runs import environment, multihost
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.runs.preemption import Stopped, StopSignals
from bahdanau_jax.runs.safe_files import read_json, write_bytes, write_json
from bahdanau_jax.runs.seq2seq_config import Seq2SeqConfig
from bahdanau_jax.token_ids import PAD, START
from bahdanau_jax.training.translator import Translator, build

_RESUME = "resume.safetensors"  # weights and optimizer of an unfinished run
_SAVE_EVERY = 250  # steps


def train_seq2seq(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains a network that translates; the run's folder gets its weights, figures and an alignment.

    A run that was stopped resumes to the same bits. Test is read once, at the end.

    Args:
      config: as made by `experiments/dates.py`.
      workdir: the run's folder; a folder that holds a run of another config is refused.

    Returns:
      the result, as written to `workdir/result.json`.

    Raises:
      InputError: the config, the folder or the data is not as expected.
      DataNotFound: a file does not exist.
      Stopped: a signal asked to stop.
    """
    multihost.check_alone("sequence to sequence")
    settings = parse_config(config)
    if not isinstance(settings, Seq2SeqConfig):
        raise InputError("config.task is missing; expected 'seq2seq'")
    with open_workdir(workdir, settings.model_dump()) as folder, StopSignals() as stop:
        console = show.make_console()
        if (folder / "result.json").exists():
            result = read_json(folder / "result.json")
            console.print(f"already finished; nothing was trained now: {folder}")
            show_result(console, result)
            return result
        environment.use_compilation_cache()
        started = time.monotonic(), time.process_time()

        data = load_pairs(settings.data.model_dump(), seed=settings.seed)
        if len(data.train) < settings.batch_size:
            raise InputError(
                f"config.batch_size is {settings.batch_size}; expected at most the"
                f" {len(data.train)} training pairs"
            )
        vocabulary = _vocabulary(settings, data.train)
        vocabulary.save(folder / "vocabulary.json")
        translator = Translator(
            build(settings, vocabulary), vocabulary, TOKENIZERS[settings.data.tokens].joint
        )
        parameters = show.parameter_count(translator.model)
        console.print(
            f"{len(data.train):,} pairs, {len(vocabulary):,} ids, {parameters:,} parameters,"
            f" {settings.steps:,} steps of {settings.batch_size}",
            style="bold",
        )
        train_seconds = _train(settings, translator, data.train, folder, stop, console)

        save_safetensors(translator.model, folder / "model.safetensors")
        splits = _evaluate(settings, translator, data)
        if settings.model.attention_units:
            example = data.test.sources[0]
            written = translator.translate([example])[0].text
            draw_alignment(folder / "alignment.png", *translator.align(example, written))
        result = {
            "splits": splits,
            "test_description": data.test_description,
            "seed": settings.seed,
            "steps": settings.steps,
            "parameters": parameters,
            "train_seconds": train_seconds,  # since the last start
            "wall_clock_seconds": time.monotonic() - started[0],
            "processor_seconds": time.process_time() - started[1],
            **environment.peak_memory(),
            **environment.provenance("babel", "sacrebleu"),
            "workdir": str(folder),
        }
        write_json(folder / "result.json", result)
        (folder / _RESUME).unlink(missing_ok=True)
        show_result(console, result)
    return result


def _vocabulary(settings: Seq2SeqConfig, train: Pairs) -> Vocabulary:
    tokenizer = TOKENIZERS[settings.data.tokens]
    name = f"{tokenizer.__module__}:{tokenizer.__name__}"
    texts = [*train.sources, *train.targets]
    return Vocabulary.build(texts, size=settings.vocab_size, tokenizer=name)


def loss_of(
    model: Seq2Seq, source: Int[Array, "batch time"], target: Int[Array, "batch steps"]
) -> Float[Array, ""]:
    """Mean cross-entropy of the targets' ids, each given those before it. Targets end with END."""
    written = jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=START)
    logits, _ = model(source, written)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    real = target != PAD
    return jnp.sum(jnp.where(real, losses, 0)) / jnp.sum(real)


@nnx.jit
def train_step(model: Seq2Seq, optimizer: nnx.Optimizer, source: Array, target: Array) -> Array:
    """Takes one step of gradient descent; returns the loss."""
    loss, grads = nnx.value_and_grad(loss_of)(model, source, target)
    optimizer.update(model, grads)
    return loss


def _train(
    settings: Seq2SeqConfig,
    translator: Translator,
    train: Pairs,
    folder: Path,
    stop: StopSignals,
    console: Console,
) -> float:
    """Trains the translator's model; returns the seconds that it took."""
    model, steps = translator.model, settings.steps
    rule = optax.adam(optax.linear_schedule(settings.learning_rate, 0.0, steps))
    if settings.clip_norm:
        rule = optax.chain(optax.clip_by_global_norm(settings.clip_norm), rule)
    optimizer = nnx.Optimizer(model, rule, wrt=nnx.Param)
    done = _restore(folder, model, optimizer)
    sources, targets = (
        [translator.encode(text) for text in texts] for texts in (train.sources, train.targets)
    )
    begun, first = time.monotonic(), done
    every_batch = batches(sources, targets, settings.batch_size, seed=settings.seed)
    left_over = enumerate(itertools.islice(every_batch, done, steps), start=done + 1)
    for step, batch in stop.each_finished(left_over):
        loss = train_step(model, optimizer, *map(jnp.asarray, batch))
        if step % max(1, steps // 20) == 0:
            left = (time.monotonic() - begun) / (step - first) * (steps - step)
            console.print(
                f"step {step:,}  loss {float(loss):.4f}  {show.format_seconds(left)} left"
            )
        if stop.asked or step % _SAVE_EVERY == 0:
            _save(folder, model, optimizer, step)
        if stop.asked:
            raise Stopped(f"stopped by {stop.asked} at step {step:,} of {steps:,}")
    return time.monotonic() - begun


def _save(folder: Path, model: Seq2Seq, optimizer: nnx.Optimizer, step: int) -> None:
    from safetensors.numpy import save

    leaves = jax.tree.leaves(nnx.state((model, optimizer)))
    arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
    write_bytes(folder / _RESUME, save(arrays | {"step": np.array(step)}))


def _restore(folder: Path, model: Seq2Seq, optimizer: nnx.Optimizer) -> int:
    """Restores what `_save` wrote; returns its step, 0 if there is none."""
    if not (folder / _RESUME).exists():
        return 0
    found = read_safetensors(folder / _RESUME)
    leaves, tree = jax.tree.flatten(nnx.state((model, optimizer)))
    wanted = {str(i): leaf.shape for i, leaf in enumerate(leaves)} | {"step": ()}
    if {name: x.shape for name, x in found.items()} != wanted:
        raise InputError(
            f"{folder / _RESUME} holds other shapes than this config's; expected those of its network"
        )
    restored = [jnp.asarray(found[str(i)]) for i in range(len(leaves))]
    nnx.update((model, optimizer), jax.tree.unflatten(tree, restored))
    return int(found["step"])


def _evaluate(settings: Seq2SeqConfig, translator: Translator, data: PairData) -> dict[str, Any]:
    """Figures of greedy decoding on validation, and of greedy decoding and beam search on test."""

    def length(text: str) -> int:
        return len(translator.encode(text))

    def measure(pairs: Pairs, beams: int) -> dict[str, Any]:
        steps = 1 + max(map(length, pairs.targets))
        translations = translator.translate(
            pairs.sources, beams=beams, length_penalty=settings.length_penalty, steps=steps
        )
        written = [translation.text for translation in translations]
        return figures(written, pairs.targets, tokens=settings.data.tokens, length=length)

    test = {"greedy": measure(data.test, 1)}
    if settings.beams > 1:
        test["beam"] = measure(data.test, settings.beams)
    return {"validation": {"greedy": measure(data.validation, 1)}, "test": test}


def show_result(console: Console, result: dict[str, Any]) -> None:
    """Prints exact match and BLEU of each split, and of test by length."""
    for split, decodings in result["splits"].items():
        for name, found in decodings.items():
            console.print(
                f"{split:<10} {name:<6} {found['n']:>6,} pairs  exact {found['exact']:.4f}"
                f"  BLEU {found['bleu']:.2f}"
            )
    console.print(f"test: {result['test_description']}; greedy, by the target's length:")
    for row in result["splits"]["test"]["greedy"]["by_length"]:
        ends = sorted({row["shortest"], row["longest"]})
        length = " to ".join(map(str, ends))
        console.print(
            f"{length:>17} {row['n']:>6,} pairs  exact {row['exact']:.4f}  BLEU {row['bleu']:.2f}"
        )
    seconds = (show.format_seconds(result[f"{x}_seconds"]) for x in ("wall_clock", "processor"))
    console.print("{} ({} of processor time); run folder {}".format(*seconds, result["workdir"]))
