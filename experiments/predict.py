r"""Predicts with a trained run: labels, probabilities and the words with the most attention.

    python -m experiments.predict --workdir=runs/imdb "A dull first hour, then pure joy."
    python -m experiments.predict --workdir=runs/imdb --input=reviews.csv --output=predictions.csv

--workdir   The folder of a run, or of a blend of runs (`experiments.blend`). It is only read.
--input     A file in any format that training reads, or .txt with a text per line. How it is read is printed.
            With - the texts come from stdin, and those that have arrived are answered at once, so another
            process can ask line by line. Other formats than txt and jsonl are read to their end first.
--column    The column or field that holds the text, by name or number; several, separated by commas. Default:
            the run's config.data.text.
--format    csv, tsv, jsonl, json, fasttext, parquet, arrow or txt, if the file does not show it. Default for
            stdin: txt.
--header, --delimiter, --quoting, --encoding
            How the file is written, as the fields of config.data. Default: the run's, for a file with the same
            ending as config.data.path; otherwise the file decides.
--output    A file that ends with .csv or .jsonl, or csv or jsonl for stdout. Default: jsonl with --input,
            otherwise a display for people.
--products  float32 (default), or int16 to multiply rounded numbers, which is faster on a CPU.
            `python -m experiments.int16` compares both first.
--weights   Adds each word that the model read and its attention weight.

Writes a record per text, in the same order: row (from 1), label, probability, and the probability of every
class. A file is checked first; then texts are read, predicted and written in chunks, so it may be larger than
memory.

Exit codes: 0 done, 2 wrong flags or input, 66 no such file, 130 interrupted. Predictions written so far are
kept.
"""

import contextlib
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
from absl import flags
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from bahdanau_jax.data.input_texts import FORMATS, open_texts
from bahdanau_jax.data.open_file import without_compression
from bahdanau_jax.data.sniff import Layout
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.blend_predictor import load_predictor, runs_of
from bahdanau_jax.evaluation.predictor import Prediction, WordsRead, read_config, words_read
from bahdanau_jax.layers.prediction import PRODUCTS
from bahdanau_jax.runs import environment
from bahdanau_jax.runs.console import format_seconds, make_console
from experiments.command import REQUIRED, command, parse_flags
from experiments.picture import SHADES, printable

CHUNK = 4096  # texts predicted at a time: enough to batch similar lengths; bounds memory
HEAVIEST = 8  # words listed below a text

Write = Callable[[IO[str], int, Sequence[Prediction]], None]


def show(console: Console, text: str, prediction: Prediction) -> None:
    """Displays a prediction: the label, the text shaded by attention, the words with the most attention."""
    read = words_read(text, prediction)
    cut = read.spans[0][0] if read.unread else 0
    shaded = Text(printable(text))  # an unprintable character could control the terminal
    for (start, end), weight, is_known in zip(read.spans, read.weights, read.known, strict=True):
        shade = shade_of(read, weight)
        shaded.stylize(shade + ("" if is_known else " underline"), start, end)
    console.print(Text(f"{prediction.label}  {prediction.probability:.1%}", style="bold"))
    console.print(Text("… ") + shaded[cut:] if cut else shaded)
    if cut:
        console.print(
            f"  (the model reads the last {len(read.spans)} of {read.unread + len(read.spans)} words)"
        )
    order = np.argsort(-prediction.weights, kind="stable")[:HEAVIEST]
    width = max(cell_len(printable(prediction.words[i])) for i in order)
    for i in order:
        word = Text(printable(prediction.words[i]), shade_of(read, float(prediction.weights[i])))
        note = "" if prediction.known[i] else "  (not in the vocabulary)"
        blanks = " " * (width - word.cell_len)
        console.print(Text.assemble("  ", word, f"{blanks}  {prediction.weights[i]:6.1%}{note}"))
    console.print(Text(f"  all even: {1 / len(prediction.words):.1%} each\n", style="dim"))


def shade_of(read: WordsRead, weight: float) -> str:
    """The style of a word: darker for more attention, relative to the other words of its text."""
    share = min(
        max((float(weight) - read.low) / read.reach, 0), 1
    )  # the start symbol may be outside
    level = round((len(SHADES) - 1) * share)
    return f"black on {SHADES[level]}" if level else ""


def write_records(
    stream: IO[str],
    first_row: int,
    predictions: Sequence[Prediction],
    *,
    form: str,
    label_names: Sequence[str],
    with_weights: bool,
) -> None:
    """Writes predictions as JSON objects, one per line, or as CSV. In CSV, words and weights are JSON."""
    writer = csv.writer(stream, lineterminator="\n")
    if form == "csv" and first_row == 1:
        classes = [f"probability_{name}" for name in label_names]
        writer.writerow(["row", "label", "probability", *classes, *["weights"] * with_weights])
    for row, prediction in enumerate(predictions, start=first_row):
        label, words, p = prediction.label, prediction.words, _shortest(prediction.probability)
        every_p = [_shortest(p) for p in prediction.probabilities]
        weights = np.round(prediction.weights.astype(np.float64), 6).tolist()
        if form == "csv":
            pairs = json.dumps(list(zip(words, weights, strict=True)), ensure_ascii=False)
            writer.writerow([row, label, p, *every_p, *[pairs] * with_weights])
            continue
        record = {"row": row, "label": label, "probability": p}
        record["probabilities"] = dict(zip(label_names, every_p, strict=True))
        if with_weights:
            record |= {"words": words, "weights": weights}
        stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def _shortest(p: float) -> float:
    """The float with the shortest decimal that rounds to this float32."""
    return float(str(np.float32(p)))


def predict_all(
    predictor: Callable[[list[str]], list[Prediction]],
    chunks: Iterable[list[str]],
    write: Write,
    output: str,
    progress: Callable[[int], None],
) -> int:
    """Predicts chunk by chunk. Writes and flushes each before it reads the next. Returns the count.

    Args:
      predictor: predicts a list of texts.
      chunks: lists of texts.
      write: writes predictions in a format, given the first row's number.
      output: a file, opened when the first chunk has been read, or "csv" or "jsonl" for stdout.
      progress: called with the number of texts done.

    Raises:
      InputError: from `chunks`, or the file cannot be written. The message counts what was written before.
    """
    done, chunks = 0, iter(chunks)
    first = next(chunks, [])  # before the output is opened: a misspelt column must not empty it
    try:
        with _open_output(output) as stream:
            for texts in chain([first], chunks):
                predictions = predictor(texts)
                if not all(np.isfinite(x.probabilities).all() for x in predictions):
                    raise InputError("the model returns NaN; expected a run that did not diverge")
                write(stream, done + 1, predictions)
                stream.flush()
                done += len(texts)
                progress(done)
    except BrokenPipeError:
        raise
    except (InputError, OSError) as error:
        message = error if isinstance(error, InputError) else f"{output}: {error.strerror}"
        kept = f"; the {done:,} predictions before it are kept" if done else ""
        raise InputError(f"{message}{kept}") from error
    return done


def _open_output(output: str) -> IO[str]:
    to_stdout = output in ("csv", "jsonl")
    return open(
        sys.stdout.fileno() if to_stdout else output,
        "w",
        closefd=not to_stdout,
        encoding="utf-8",
        # Half a surrogate pair, which JSON allows and UTF-8 does not, becomes \udc00, as JSON writes it.
        errors="backslashreplace",
        newline="",
    )


def _read_chunks(asked: flags.FlagValues) -> tuple[Iterator[list[str]], int | None]:
    """As `open_texts`. A file that is named like the run's own is read like it."""
    run, *_ = runs_of(asked.workdir) or [Path(asked.workdir).expanduser()]
    data = read_config(run).data
    own = Path(without_compression(data.path)).suffix
    alike = own and own == Path(without_compression(asked.input)).suffix

    def field(name: str) -> str:
        return getattr(asked, name) or (getattr(data, name) if alike else "")

    return open_texts(
        asked.input,
        [asked.column] if asked.column else [data.text, "text"],
        Layout(
            asked.format or "",
            header=field("header"),
            delimiter=field("delimiter"),
            quoting=field("quoting"),
            encoding=field("encoding"),
        ),
        size=CHUNK,
        say=partial(print, file=sys.stderr),
    )


@contextlib.contextmanager
def _progress(asked: flags.FlagValues, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr if it is a terminal that shows nothing else. None for stdin."""
    console = Console(stderr=True)
    alone = asked.output not in ("csv", "jsonl") or not sys.stdout.isatty()
    columns = (TextColumn("{task.fields[count]}"), BarColumn(), TaskProgressColumn())
    begun = time.monotonic()
    live = console.is_terminal and alone and total is not None
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not live) as bar:
        task = bar.add_task("", total=total, count="0 texts")

        def update(done: int) -> None:
            count = f"{done:,} texts, {done / (time.monotonic() - begun):,.0f}/s"
            bar.update(task, completed=done, count=count)

        yield update


def _parse(argv: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    asked, texts = parse_flags(
        argv,
        positional=True,
        workdir=REQUIRED,
        input=None,
        output=None,
        column=None,
        format=(None, *FORMATS),
        header=(None, "yes", "no"),
        delimiter=None,
        quoting=(None, "yes", "no"),
        encoding=None,
        weights=False,
        products=PRODUCTS,
    )
    if bool(texts) == (asked.input is not None):
        found = "both" if texts else "neither"
        raise flags.Error(f"expected a text or --input; found {found}")
    if asked.input is not None:
        asked.input = os.path.expanduser(asked.input)
        asked.output = asked.output or "jsonl"
    if asked.output not in (None, "csv", "jsonl"):
        if not asked.output.endswith((".csv", ".jsonl")):
            raise flags.Error(
                f"--output={asked.output}: expected csv, jsonl, or a file that ends with .csv or .jsonl"
            )
        asked.output = os.path.expanduser(asked.output)
        with contextlib.suppress(OSError):
            if asked.input not in (None, "-") and os.path.samefile(asked.input, asked.output):
                raise flags.Error(f"--input and --output are the same file, {asked.input}")
    return asked, texts


def predict(asked: flags.FlagValues, texts: list[str]) -> None:
    """Predicts `texts` or the texts of --input."""
    chunks, total = iter([texts]), None
    if asked.input is not None:
        chunks, total = _read_chunks(asked)
    predictor = load_predictor(asked.workdir, products=asked.products)
    if asked.output is None:
        console = make_console()
        for text, prediction in zip(texts, predictor(texts), strict=True):
            show(console, text, prediction)
        return
    write = partial(
        write_records,
        form="csv" if asked.output.endswith("csv") else "jsonl",
        label_names=predictor.label_names,
        with_weights=asked.weights,
    )
    begun = time.monotonic()
    with _progress(asked, total) as progress:
        done = predict_all(predictor, chunks, write, asked.output, progress)
    seconds = time.monotonic() - begun
    if asked.output not in ("csv", "jsonl"):
        taken = f"{format_seconds(seconds)}, {done / seconds:,.0f} per second"
        print(f"{done:,} predictions in {asked.output} ({taken})", file=sys.stderr)


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, texts = _parse(argv)
    environment.use_compilation_cache()
    predict(asked, texts)


if __name__ == "__main__":
    sys.exit(main())
