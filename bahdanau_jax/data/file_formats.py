"""Reads texts to predict from files and pipes, one by one, and groups them in chunks."""

import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from bahdanau_jax.data.objects import MISSING, as_text, describe_fields, find, json_lines
from bahdanau_jax.data.tables import Columns, csv_rows, positions
from bahdanau_jax.errors import InputError

FORMATS = ("csv", "tsv", "jsonl", "txt")
DELIMITERS = {"csv": ",", "tsv": "\t"}


def format_of(name: str) -> str:
    """Returns the format that a file's ending names.

    Raises:
      InputError: the ending is not one of `FORMATS`.

    Example:
      >>> format_of("reviews.CSV")
      'csv'
    """
    ending = PurePath(name).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise InputError(f"{name}: expected a name that ends with .{', .'.join(FORMATS)}")
    return ending


def read_texts(lines: Iterable[bytes], *, name: str, form: str, column: str) -> Iterator[str]:
    r"""Yields texts in their order, as they are read.

    Args:
      lines: an open binary file, or any lines of bytes in UTF-8. A line is read only when its text is asked
        for.
      name: name of the file, for messages.
      form: one of `FORMATS`. "txt" has a text on each line, even on an empty one. "csv" and "tsv" have a
        header. "jsonl" has an object on each line. "csv", "tsv" and "jsonl" skip blank lines.
      column: the column or field that holds the text, or several, separated by commas; "txt" has none.

    Raises:
      InputError: when the generator reaches the fault: the column is missing, a quote is never closed, a record
        has more or fewer fields than the header, or a line is not JSON or not UTF-8. Names the line.

    Example:
      >>> list(read_texts([b"stars,body\n", b'5,"fine, really"\n'], name="a", form="csv", column="body"))
      ['fine, really']
    """
    decoded = _decode(lines, name)
    if form == "txt":
        yield from (line.rstrip("\r\n") for line in decoded)
    elif form == "jsonl":
        for number, record in json_lines(decoded, name):
            text = find(record, column)
            if text is MISSING:
                raise InputError(
                    f"{name}: line {number} has {describe_fields(record)}; expected a field {column!r}"
                )
            yield as_text(text, f"{name}: line {number}", column)
    else:
        rows = csv_rows(decoded, name, DELIMITERS[form], quoting=True)
        _, header = next(rows, (0, None))
        if header is None:
            raise InputError(f"{name} is empty; expected a header with the column {column!r}")
        text, *_ = positions(Columns(column, "", "", ""), header, Path(name))
        if not text:
            raise InputError(
                f"{name}: the column is ''; expected one of {', '.join(map(repr, header))}"
            )
        for _, row in rows:
            yield "\n".join(row[i] for i in text if row[i])  # several are joined as in training


def _decode(lines: Iterable[bytes], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            # Some programs put a byte order mark first. It is not part of the text.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}: line {number} is not UTF-8 (byte {error.object[error.start]:#04x}); "
                "expected a file in UTF-8"
            ) from error


def in_chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yields lists of `size` texts; the last one may be shorter.

    Raises:
      InputError: from `texts`, after the texts before it were yielded.

    Example:
      >>> list(in_chunks("abcde", 2))
      [['a', 'b'], ['c', 'd'], ['e']]
    """
    chunk, failed = [], None
    try:
        for text in texts:
            chunk.append(text)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except InputError as error:
        failed = error
    if chunk:
        yield chunk
    if failed is not None:
        raise failed


def as_they_come(texts: Iterable[str], most: int) -> Iterator[list[str]]:
    """Yields lists of the texts that have arrived: at least one, at most `most`.

    A process at the other end of a pipe may wait for an answer before it writes its next line.
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
