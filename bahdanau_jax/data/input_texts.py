"""Reads texts to predict: from files as training reads them, and from pipes as they arrive."""

import atexit
import dataclasses
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO

from bahdanau_jax.data.arrow_texts import scratch_folder
from bahdanau_jax.data.csv_rows import csv_rows
from bahdanau_jax.data.files import from_file
from bahdanau_jax.data.objects import MISSING, describe_fields, find, json_lines
from bahdanau_jax.data.open_file import one_line_errors, open_bytes, without_compression
from bahdanau_jax.data.parts import ROW, Part
from bahdanau_jax.data.record_batches import RecordBatch, in_batches
from bahdanau_jax.data.sniff import FORMATS as FILE_FORMATS
from bahdanau_jax.data.sniff import Layout, check_encoding, open_lines, sniff
from bahdanau_jax.data.tables import Columns, asked_names
from bahdanau_jax.data.text_lines import text_lines
from bahdanau_jax.errors import InputError

FORMATS = (*FILE_FORMATS, "txt")
TABLES = ("csv", "tsv", "tab")
STREAMED = ("txt", "jsonl")  # what can be read before its end has arrived


def open_texts(
    name: str,
    columns: Sequence[str],
    given: Layout,
    *,
    size: int,
    say: Callable[[str], object],
) -> tuple[Iterator[list[str]], int | None]:
    """Opens texts to predict.

    Args:
      name: a file, or "-" for stdin.
      columns: see `TextsOfFile`; for stdin, the first counts.
      given: how it is written. "" where the file decides; stdin is "txt".
      size: the most texts in a chunk.
      say: takes a line about how the texts are read; of stdin, when it has ended.

    Returns:
      the texts in chunks, and their number, or None where that is not known.

    Raises:
      DataNotFound, InputError: as `TextsOfFile`.
    """
    form, path = given.format or "txt", Path(name)
    shown, is_pipe = str(path), path.exists() and not (path.is_file() or path.is_dir())
    try:
        check_encoding(given.encoding)
        if name == "-" and form in STREAMED:
            texts = texts_of_stream(sys.stdin.buffer, form, columns[0], given.encoding, say)
            return as_they_come(texts, size), None
        with one_line_errors(path):
            if name == "-":
                shown, path = "stdin", _copy(sys.stdin.buffer, "stdin")
            elif is_pipe:
                path = _copy(open(path, "rb"), path.name)
        texts = TextsOfFile(path, columns, given)
    except InputError as error:  # these fields are flags of `experiments.predict`
        message = str(error).replace("config.data.", "--").replace(str(path), shown)
        raise type(error)(message) from error
    for line in texts.notes:
        say(line)
    return in_chunks(texts, size), len(texts)


def _copy(pipe: IO[bytes], name: str) -> Path:
    """A file with what a pipe holds, which is removed when the process ends."""
    folder = tempfile.mkdtemp(dir=scratch_folder())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with pipe, open(Path(folder, name), "wb") as copy:
        shutil.copyfileobj(pipe, copy)
    return Path(copy.name)


class TextsOfFile:
    """The texts of a file, one per record and in their order, also empty ones.

    The file is checked when this is made, and read again for the texts.

    Args:
      path: the file, in a format that training reads, or "txt": a text on each line.
      columns: the column or field that holds the text, or several, separated by commas; others to try where
        the file lacks it. "text" may also be the only one, or the longer one of two.
      given: how the file is written. "" where the file decides.

    Attributes:
      notes: how the file is read, and what is odd about it.

    Raises:
      DataNotFound, InputError: as `load_files`.
    """

    def __init__(self, path: Path, columns: Sequence[str], given: Layout):
        with one_line_errors(path):
            self._path, self._columns, self._layout = path, columns, _sniff(path, given)
            part, texts = self._open()
            self._length = sum(1 for _ in texts)
            self.notes = part.notes

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        with one_line_errors(self._path):
            yield from self._open()[1]

    def _open(self) -> tuple[Part, Iterator[str]]:
        """Counts, and the texts from the first column that the first record has."""
        failed, row = None, ROW.get(self._layout.format, "row")
        for column in dict.fromkeys(self._columns):
            part = Part(self._path.name, row, label="", classes=(), refuse=False, text=column)
            texts = self._texts(column, part)
            try:
                return part, chain(list(islice(texts, 1)), texts)
            except InputError as error:
                failed = failed or error
        raise failed or ValueError("no columns")

    def _texts(self, column: str, part: Part) -> Iterator[str]:
        if self._layout.format == "txt":
            batches = self._lines(part)
        else:
            columns = Columns(column, label="")
            batches = from_file(self._path, columns, self._layout, part)
        for batch in batches:
            texts = part.texts_of(batch)
            part.count_empty(texts, batch.places, "predicted like others")
            yield from texts.to_pylist()

    def _lines(self, part: Part) -> Iterator[RecordBatch]:
        part.note(f"reading {self._path.name} as {self._layout}; a text per line")
        with open_bytes(self._path) as file:
            lines = chain.from_iterable(text_lines(file, part.count, self._layout.encoding))
            records = ((i, [line], None, None, None) for i, line in enumerate(lines, start=1))
            yield from in_batches(records)


def _sniff(path: Path, given: Layout) -> Layout:
    """As `sniff`, but a file whose name and content show no table has a text on each line."""
    layout = sniff(path, given)
    ending = Path(without_compression(path.name)).suffix.removeprefix(".")
    if layout.format != "csv" or given.format or given.delimiter or ending in TABLES:
        return layout
    is_table = ending != "txt" or layout.delimiter == "\t"
    with open_lines(path, layout) as lines:
        rows = csv_rows(lines, "", layout.delimiter, quoting=layout.quoting == "yes")
        try:
            is_table = is_table and all(len(row) > 1 for _, row in islice(rows, 200))
        except InputError:
            is_table = False
    return layout if is_table else dataclasses.replace(layout, format="txt")


def texts_of_stream(
    stream: IO[bytes], form: str, column: str, encoding: str, say: Callable[[str], object]
) -> Iterator[str]:
    r"""Yields the texts of a pipe as they arrive.

    Args:
      stream: lines, as `text_lines` reads them.
      form: one of `STREAMED`. "jsonl" skips blank lines.
      column: the field of "jsonl" that holds the text, or several.
      encoding: see `text_lines`.
      say: takes lines about what was odd, when the stream has ended.

    Raises:
      InputError: when the generator reaches a line that is not JSON or lacks the field.

    Example:
      >>> import io
      >>> stream = io.BytesIO(b'{"body": "fine"}\r\n\r\n{"body": "dull"}')
      >>> list(texts_of_stream(stream, "jsonl", "body", "", print))
      ['fine', 'dull']
    """
    part = Part("stdin", ROW[form], label="", classes=(), refuse=False, text=column)
    lines = chain.from_iterable(text_lines(stream, part.count, encoding))
    try:
        if form == "txt":
            yield from lines
        else:
            yield from _fields(lines, column, part)
    finally:
        for line in part.notes:
            say(line)


def _fields(lines: Iterable[str], column: str, part: Part) -> Iterator[str]:
    for number, record in json_lines(lines, part.name):
        fields = asked_names(column, list(record) if isinstance(record, dict) else ())
        values = [find(record, field) for field in fields]
        if MISSING in values:
            raise InputError(
                f"{part.name}: line {number} has {describe_fields(record)}; expected a field "
                f"{fields[values.index(MISSING)]!r}"
            )
        (record_batch,) = in_batches([(number, values, None, None, None)])
        yield part.texts_of(record_batch)[0].as_py()


def in_chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yields lists of `size` texts; the last one may be shorter.

    Example:
      >>> list(in_chunks("abcde", 2))
      [['a', 'b'], ['c', 'd'], ['e']]
    """
    texts = iter(texts)
    while chunk := list(islice(texts, size)):
        yield chunk


def as_they_come(texts: Iterable[str], most: int) -> Iterator[list[str]]:
    """Yields lists of the texts that have arrived: at least one, at most `most`.

    A process at the other end of a pipe may wait for an answer before it writes its next line.

    Raises:
      InputError: from `texts`, after the texts before it were yielded.
    """
    arrived: queue.Queue[str | Exception | None] = queue.Queue(maxsize=most)

    def read() -> None:
        try:
            for text in texts:
                arrived.put(text)
        except Exception as error:  # raised again where the chunks are read
            arrived.put(error)
        else:
            arrived.put(None)

    # A daemon thread: Ctrl-C must not wait for a line that may never arrive.
    threading.Thread(target=read, daemon=True).start()
    chunk: list[str] = []
    while isinstance(item := arrived.get(), str):
        chunk.append(item)
        if len(chunk) == most or arrived.empty():
            yield chunk
            chunk = []
    if chunk:
        yield chunk
    if item is not None:
        raise item
