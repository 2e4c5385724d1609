r"""Predicts with a trained run: label, probability and the words that weighed most.

    python -m experiments.predict --workdir=runs/imdb "A dull first hour, then pure joy."
    python -m experiments.predict --workdir=runs/imdb --input=reviews.csv --output=predictions.csv

--workdir   The run's folder, which is only read.
--input     A file of texts instead: .csv or .tsv (with a header), .jsonl (an object a line) or .txt (a text
            a line), in UTF-8; - reads stdin and answers what has come by now, so another process can ask
            line by line.
--column    The column or field that holds the text; default: text.
--format    csv, tsv, jsonl or txt, where the name does not tell; default for stdin: txt.
--output    A file that ends with .csv or .jsonl, or csv or jsonl for stdout. Default: jsonl for --input;
            for texts given here, what a person reads.
--weights   Adds each word the model read and the attention it got.

One record for each text, in the texts' order: row (from 1), label, probability, the probability of every
class. Texts are read, predicted and written in pieces, so that a file may be larger than memory.

Ends with 0 when done, 2 when something asked for is not right; what was predicted before is kept.
"""

import contextlib
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import IO, Any

import numpy as np
from absl import flags
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from bahdanau_jax import environment
from bahdanau_jax.console import format_seconds, make_console
from bahdanau_jax.errors import InputError
from bahdanau_jax.predict import Prediction, Predictor, WordsRead, words_read
from bahdanau_jax.text_files import FORMATS, as_they_come, format_of, in_chunks, read_texts
from experiments.command import asks_for_help, fail, one_line
from experiments.picture import SHADES, printable

CHUNK = 4096  # texts predicted at a time: similar lengths find each other, and memory stays flat
HEAVIEST = 8  # words listed under a text

Write = Callable[[IO[str], int, Sequence[Prediction]], None]


def show(console: Console, text: str, prediction: Prediction) -> None:
    """Prints a text for a person: the label, the text shaded by attention, the heaviest words."""
    read = words_read(text, prediction)
    cut = read.spans[0][0] if read.unread else 0
    shaded = Text(printable(text))  # what is not printable could be an order to the terminal
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
    width = max(len(prediction.words[i]) for i in order)
    for i in order:
        word = Text(printable(prediction.words[i]), shade_of(read, float(prediction.weights[i])))
        note = "" if prediction.known[i] else "  (not in the vocabulary)"
        blanks = " " * (width - len(word))
        console.print(Text.assemble("  ", word, f"{blanks}  {prediction.weights[i]:6.1%}{note}"))
    console.print(Text(f"  all even: {1 / len(prediction.words):.1%} each\n", style="dim"))


def shade_of(read: WordsRead, weight: float) -> str:
    """The style of a word: the heavier, the stronger, from its text's lightest word to its heaviest."""
    share = min(max((float(weight) - read.low) / read.reach, 0), 1)  # the start may be outside
    level = round((len(SHADES) - 1) * share)
    return f"black on {SHADES[level]}" if level else ""


def to_jsonl(label_names: Sequence[str], weights: bool) -> Write:
    """Writes predictions as JSON objects, one a line."""

    def write(stream: IO[str], first_row: int, predictions: Sequence[Prediction]) -> None:
        for row, prediction in enumerate(predictions, start=first_row):
            record: dict[str, Any] = {
                "row": row,
                "label": prediction.label,
                "probability": _shortest(prediction.probability),
                "probabilities": {
                    name: _shortest(p)
                    for name, p in zip(label_names, prediction.probabilities, strict=True)
                },
            }
            if weights:
                record["words"] = prediction.words
                record["weights"] = _rounded(prediction.weights)
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")

    return write


def to_csv(label_names: Sequence[str], weights: bool) -> Write:
    """Writes predictions as CSV; the words with their weights are a column of JSON."""

    def write(stream: IO[str], first_row: int, predictions: Sequence[Prediction]) -> None:
        writer = csv.writer(stream, lineterminator="\n")
        if first_row == 1:
            classes = [f"probability_{name}" for name in label_names]
            writer.writerow(["row", "label", "probability", *classes, *["weights"] * weights])
        for row, prediction in enumerate(predictions, start=first_row):
            numbers = map(_shortest, (prediction.probability, *prediction.probabilities))
            fields = [row, prediction.label, *numbers]
            if weights:
                pairs = list(zip(prediction.words, _rounded(prediction.weights), strict=True))
                fields.append(json.dumps(pairs, ensure_ascii=False))
            writer.writerow(fields)

    return write


def _shortest(p: float) -> float:
    """The shortest decimal that is this float32."""
    return float(str(np.float32(p)))


def _rounded(weights: np.ndarray) -> list[float]:
    return np.round(weights.astype(np.float64), 6).tolist()


def predict_all(
    predictor: Predictor,
    chunks: Iterable[list[str]],
    write: Write,
    output: str,
    progress: Callable[[int], None],
) -> int:
    """Predicts chunk by chunk, each written and flushed before the next is read; returns the count.

    Args:
      predictor: the model.
      chunks: lists of texts.
      write: of a format; called with the first row's number.
      output: a file, which is opened when the first chunk is there, or "csv" or "jsonl" for stdout.
      progress: is told the number of texts done.

    Raises:
      InputError: from `chunks`, or the file cannot be written; says how much was written before.
    """
    done, chunks = 0, iter(chunks)
    first = next(chunks, [])  # a misspelt column must not cost an old output
    try:
        with _open_output(output) as stream:
            for texts in chain([first], chunks):
                predictions = predictor(texts)
                if not all(np.isfinite(x.probabilities).all() for x in predictions):
                    raise InputError("the model gives NaN; expected a run that did not diverge")
                write(stream, done + 1, predictions)
                stream.flush()
                done += len(texts)
                progress(done)
    except BrokenPipeError:
        raise
    except (InputError, OSError) as error:
        message = error if isinstance(error, InputError) else f"{output}: {error.strerror}"
        kept = f"; the {done:,} predictions before that are written" if done else ""
        raise InputError(f"{message}{kept}") from error
    return done


def _open_output(output: str) -> IO[str]:
    to_stdout = output in ("csv", "jsonl")
    return open(
        sys.stdout.fileno() if to_stdout else output,
        "w",
        closefd=not to_stdout,
        encoding="utf-8",
        # Half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes \udc00: JSON's own way.
        errors="backslashreplace",
        newline="",
    )


def _chunks_of_input(asked: flags.FlagValues, opened: contextlib.ExitStack) -> tuple[Any, Any]:
    """Chunks of the input's texts, and how many of its bytes are read, as a function (stdin: None)."""
    name, form = asked.input, asked.format
    if name == "-":
        lines = opened.enter_context(open(sys.stdin.fileno(), "rb", closefd=False))
        texts = read_texts(lines, name="stdin", form=form or "txt", column=asked.column)
        return as_they_come(texts, CHUNK), None
    form = form or format_of(name)
    try:
        lines = opened.enter_context(open(name, "rb"))
    except OSError as error:
        raise InputError(f"--input={name} cannot be read: {error.strerror}") from error
    texts = read_texts(lines, name=name, form=form, column=asked.column)
    return in_chunks(texts, CHUNK), lines.tell


@contextlib.contextmanager
def _progress(
    asked: flags.FlagValues, position: Callable | None
) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal that nothing else is written to; none for stdin."""
    console = Console(stderr=True)
    alone = asked.output not in ("csv", "jsonl") or not sys.stdout.isatty()
    columns = (TextColumn("{task.fields[count]}"), BarColumn(), TaskProgressColumn())
    begun = time.monotonic()
    live = console.is_terminal and alone and position is not None
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not live) as bar:
        task = bar.add_task("", count="0 texts")

        def update(done: int) -> None:
            if live and position is not None:
                count = f"{done:,} texts, {done / (time.monotonic() - begun):,.0f}/s"
                size = os.path.getsize(asked.input)
                bar.update(task, completed=position(), total=size, count=count)

        yield update


def _parse(argv: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    asked = flags.FlagValues()
    for flag in ("workdir", "input", "output"):
        flags.DEFINE_string(flag, None, "", flag_values=asked)
    flags.DEFINE_string("column", "text", "", flag_values=asked)
    flags.DEFINE_enum("format", None, FORMATS, "", flag_values=asked)
    flags.DEFINE_bool("weights", False, "", flag_values=asked)
    texts = asked(list(argv))[1:]
    if not asked.workdir:
        raise flags.Error("--workdir is missing; expected a run's folder")
    if bool(texts) == (asked.input is not None):
        found = "both" if texts else "neither"
        raise flags.Error(f"expected a text or --input; found {found}")
    if asked.input == "":
        raise flags.Error("--input is empty; expected a file, or - for stdin")
    if asked.input is not None:
        asked.input = os.path.expanduser(asked.input)
    if asked.input is not None and asked.output is None:
        asked.output = "jsonl"
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
    """Does what the command line asks for."""
    environment.use_compilation_cache()
    with contextlib.ExitStack() as opened:
        chunks, position = [texts], None
        if asked.input is not None:
            chunks, position = _chunks_of_input(asked, opened)
        predictor = Predictor.load(asked.workdir)
        if asked.output is None:
            console = make_console()
            for text, prediction in zip(texts, predictor(texts), strict=True):
                show(console, text, prediction)
            return
        form = to_csv if asked.output.endswith("csv") else to_jsonl
        write = form(predictor.label_names, asked.weights)
        begun = time.monotonic()
        update = opened.enter_context(_progress(asked, position))
        done = predict_all(predictor, chunks, write, asked.output, update)
    seconds = time.monotonic() - begun
    if asked.output not in ("csv", "jsonl"):
        taken = f"{format_seconds(seconds)}, {done / seconds:,.0f} a second"
        print(f"{done:,} predictions in {asked.output} ({taken})", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if asks_for_help(argv):
        print(__doc__)
        return 0
    try:
        asked, texts = _parse(argv)
        flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own and refuses unparsed ones
        predict(asked, texts)
    except (flags.Error, InputError) as error:
        return fail(one_line(error))
    except BrokenPipeError:  # as `| head` does: nobody reads on, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return fail("interrupted; what was written before is kept", 130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
