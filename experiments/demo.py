r"""Opens a page in which you type a text and see what runs make of it, as you type.

    python -m experiments.demo --workdir=runs/imdb
    python -m experiments.demo --workdir=runs/imdb,runs/imdb_unmasked    # side by side

--workdir   The runs' folders, separated by commas; the flag may be repeated. They are only read.
--port      Of the page, http://127.0.0.1:PORT. Default: 7860.

The page shows each run's label, its calibrated probability, and the words shaded by attention, by integrated
gradients and by the change when a word is left out. The examples are the runs' most confident mistakes.

Needs the extra `demo`. The page is served to this machine alone, and it asks no other host for anything.

Exit code: 0 when stopped with Ctrl-C, 2 when something asked for is wrong.
"""

import importlib
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Predictor
from bahdanau_jax.report.answer import answers
from bahdanau_jax.report.template import template
from bahdanau_jax.runs import environment
from bahdanau_jax.runs.predictions import choose_reviews, read_predictions, read_reviews
from experiments.command import command, parse_flags

HOST = "127.0.0.1"
FIRST_TEXT = "A dull first hour, then pure joy."
EXAMPLES = 8  # of each run
START_OF_EXAMPLE = 70  # characters
MOST_CHARACTERS = 5_000_000
NOTE = (
    "The stronger a word's colour, the more it counts by that measure, on a scale of its own for each text. "
    "Dotted words are not in the vocabulary. Gradients and leaving out are taken for the likeliest class and "
    "shown without their sign, because attention has none."
)


def load(workdirs: Sequence[str]) -> dict[str, Predictor]:
    """Returns the runs' predictors by the folders' names, or by the folders where names repeat.

    Raises:
      InputError: a folder holds no run, or its model returns NaN.
    """
    folders = [Path(workdir).expanduser() for workdir in workdirs]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    found = {name: Predictor.load(folder) for name, folder in zip(names, folders, strict=True)}
    for folder, predictor in zip(folders, found.values(), strict=True):
        if not np.isfinite(predictor([FIRST_TEXT])[0].probabilities).all():
            raise InputError(
                f"{folder}: the model returns NaN; expected a run that did not diverge"
            )
    return found


def mistakes(workdir: str, label_names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (what the run took it for, text) of its most confident mistakes; none before a run's end."""
    folder = Path(workdir).expanduser()
    texts = read_reviews(folder)
    if not texts or not (folder / "predictions.jsonl").exists():
        return []
    test = read_predictions(folder)
    rows = choose_reviews(test.probabilities, test.labels)[1]
    found = [
        (f"taken for {label_names[int(test.probabilities[i].argmax())]}", texts[test.ids[i]])
        for i in rows
        if test.ids[i] in texts
    ]
    return found[:EXAMPLES]


def gradio() -> Any:
    """Imports Gradio, without telemetry.

    Raises:
      InputError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at the import
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        needed = "the demo needs gradio: pip install 'bahdanau-jax[demo]'"
        raise InputError(f"{needed} ({error})") from error


def make_page(predictors: Mapping[str, Predictor], examples: Sequence[tuple[str, str]]) -> Any:
    """Returns the page as Gradio's `Blocks`."""
    gr = gradio()
    with gr.Blocks(title="bahdanau-jax", analytics_enabled=False) as page:
        box = gr.Textbox(
            FIRST_TEXT, label="Text", lines=4, max_lines=12, max_length=MOST_CHARACTERS
        )
        answer = gr.HTML()
        if examples:
            labels = [f"{note}: {text[:START_OF_EXAMPLE]}…" for note, text in examples]
            gr.Examples(
                [[text] for _, text in examples],
                box,
                label="Most confident mistakes",
                example_labels=labels,
                examples_per_page=EXAMPLES,
                api_visibility="private",
            )
        gr.Markdown(NOTE)
        gr.on(
            [page.load, box.change],
            partial(answers, predictors),
            box,
            answer,
            trigger_mode="always_last",  # while one text is answered, only the newest waits
            show_progress="hidden",
            api_visibility="private",
        )
    return page


def check_port(port: int) -> None:
    """Raises InputError if the page cannot be served there."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise InputError(f"--port={port}: {error.strerror}; expected a free port") from error


def serve(page: Any, port: int) -> None:
    """Serves the page on this machine until Ctrl-C."""
    gr = gradio()
    page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        ssr_mode=False,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=template("answer.css").render(),
    )
    print(f"http://{HOST}:{port}  (Ctrl-C stops it)", flush=True)
    page.block_thread()


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, _ = parse_flags(argv, workdir=[], port=7860)
    if not asked.workdir or not all(asked.workdir):
        raise flags.Error("--workdir is missing; expected a run's folder, or several: a,b")
    if asked.port > 65535:
        raise flags.Error(f"--port={asked.port}; expected at most 65535")
    check_port(asked.port)
    gradio()
    environment.use_compilation_cache()
    predictors = load(asked.workdir)
    examples = []
    for workdir, (name, predictor) in zip(asked.workdir, predictors.items(), strict=True):
        by = f" by {name}" if len(predictors) > 1 else ""
        for note, text in mistakes(workdir, predictor.label_names):
            examples.append((note + by, text))
    serve(make_page(predictors, examples), asked.port)


if __name__ == "__main__":
    sys.exit(main())
