"""Evaluation: of validation after each epoch, of every split at the end, and the files that a run leaves."""

import time
from typing import Any

import jax
import numpy as np

from bahdanau_jax.errors import one_line
from bahdanau_jax.evaluation.metrics import figures_of, figures_of_splits
from bahdanau_jax.layers.recurrence import lstm_implementation
from bahdanau_jax.models.probabilities import probabilities
from bahdanau_jax.runs import console as show
from bahdanau_jax.runs import environment
from bahdanau_jax.runs.predictions import write_predictions, write_reviews
from bahdanau_jax.runs.safe_files import write_json
from bahdanau_jax.training.compile import Compiled
from bahdanau_jax.training.fit_blend import fit_blend
from bahdanau_jax.training.inputs import Tokenized
from bahdanau_jax.training.progress import Progress
from bahdanau_jax.training.session import Session
from bahdanau_jax.training.state import Setup


def validate(
    run: Session, setup: Setup, compiled: Compiled, data: Tokenized, progress: Progress, state: Any
) -> Any:
    """Writes loss and accuracy on validation and compares them with the best so far.

    Returns:
      the state, in which the scales of a blend are fitted.
    """
    begun = time.monotonic()
    state, logits = fit_blend(run, compiled, data, state)
    figures = figures_of(logits, data.examples["validation"])
    seconds, epoch = time.monotonic() - begun, progress.step // setup.epoch_steps
    run.writer.epoch(progress.step, epoch=epoch, split="validation", seconds=seconds, **figures)
    if "scales" in state[0]:
        network, ngrams = np.asarray(state[0]["scales"][...])
        run.writer.note(f"blend: {network:.3f} network + {ngrams:.3f} n-grams")
    progress.compare({"step": progress.step, "epoch": epoch, **figures})
    return state


def finish(
    run: Session, setup: Setup, compiled: Compiled, data: Tokenized, progress: Progress, state: Any
) -> dict[str, Any]:
    """Evaluates every split with the final model, reads test for the first time, and writes the result."""
    compilation = compiled.figures(run.started)
    run.writer.note(
        f"{progress.clock}; compiled for {compilation['compilation_seconds']:.1f} s, "
        f"the last one done after {compilation['last_compilation_seconds']:.1f} s"
    )
    data.add_test()
    state, validated = fit_blend(run, compiled, data, state)
    logits = {
        split: validated if split == "validation" else compiled.evaluate(state[0], ids)
        for split, ids in data.ids.items()
    }
    if run.first:
        held_out = ("validation", "test")
        write_predictions(
            run.workdir / "predictions.jsonl",
            {split: (data.examples[split], logits[split]) for split in held_out},
            words={split: data.whole[split].lengths - 1 for split in held_out},
        )
        test_probabilities = np.asarray(probabilities(logits["test"]))
        write_reviews(run.workdir, data.examples["test"], test_probabilities)
    config, dataset = run.config, data.dataset
    result = {
        "dataset": dataset.name,
        "label_names": list(dataset.label_names),
        "test_description": dataset.test_description,
        "splits": figures_of_splits(logits, data.examples),
        "seed": config.seed,
        "epochs": config.epochs,
        "steps": progress.step,
        "skipped_steps": progress.skipped_steps,
        "best": progress.best,
        "wall_clock_seconds": time.monotonic() - run.started,
        **progress.clock.measured(),
        "parameters": show.parameter_count(setup.model),
        **environment.peak_memory(),
        "compilations": len(compiled.train_step),
        **compilation,
        "recurrence": lstm_implementation(
            config.model.implementation,
            dtype=config.model.dtype,
            hidden_features=config.model.hidden_features,
        )[0],
        "devices": environment.devices(),
        "processes": jax.process_count(),
        **environment.provenance(),
        "workdir": str(run.workdir),
    }
    run.checkpoints.wait()
    if run.first:
        write_json(run.workdir / "result.json", result)
    if jax.process_count() > 1:  # a checkpoint is read by all processes, or by one that is alone
        run.writer.note(f"python -m experiments.report --workdir={run.workdir} makes the report")
    else:
        add_report(run)
    show.show_result(run.console, result, log=run.writer.log)
    return result


def add_report(run: Session) -> None:
    """Makes report.html and calibration.json. The run is finished without them: no fault may end it."""
    begun = time.monotonic()
    try:
        # matplotlib and Jinja, which training does without
        from bahdanau_jax.report.report import make_report

        file = make_report(run.workdir)
        run.writer.note(f"report in {file} ({show.format_seconds(time.monotonic() - begun)})")
    except Exception as error:
        message = f"{type(error).__name__}: {one_line(error)[:300]}"
        run.writer.note(f"warning: there is no report ({message})")
