"""Reads texts from files and pipes record by record: CSV, TSV, JSON lines, or one text per line.

A file may be larger than memory. Messages name the line of a bad record.
"""

import csv
import json
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any

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
      lines: an open binary file, or any lines of bytes in UTF-8.
      name: name of the file, for messages.
      form: one of `FORMATS`. "txt" has a text on each line, even on an empty one. "csv" and "tsv" have a
        header. "jsonl" has an object on each line. "csv", "tsv" and "jsonl" skip blank lines.
      column: the column or field that holds the text; "txt" has none.

    Raises:
      InputError: when the generator reaches the fault: the column is missing, a quote is never closed, a record
        has more or fewer fields than the header, or a line is not JSON or not UTF-8. Names the line.

    Example:
      >>> list(read_texts([b"stars,body\n", b'5,"fine, really"\n'], name="a", form="csv", column="body"))
      ['fine, really']
    """
    if form == "txt":
        return (line.rstrip("\r\n") for _, line in _decode(lines, name))
    records = read_records(lines, name=name, form=form, columns=[column])
    return (as_text(text, name, line, column) for line, (text,) in records)


def read_records(
    lines: Iterable[bytes], *, name: str, form: str, columns: Sequence[str]
) -> Iterator[tuple[int, list[Any]]]:
    r"""Yields the values of some columns, record by record, and the line where each record begins.

    Args:
      lines, name: as in `read_texts`. A line is read only when its record is asked for.
      form: "csv", "tsv" or "jsonl".
      columns: columns of the header, or fields of every object.

    Yields:
      line, counted from 1, and values: texts, or whatever a JSON field holds.

    Raises:
      InputError: as `read_texts`.

    Example:
      >>> lines = [b"stars,body\n", b'5,"fine,\n', b'really"\n', b"1,dull\n"]
      >>> list(read_records(lines, name="a", form="csv", columns=["body", "stars"]))
      [(2, ['fine,\nreally', '5']), (4, ['dull', '1'])]
    """
    numbered = _decode(lines, name)
    if form == "jsonl":
        return _from_jsonl(numbered, name, columns)
    return _from_csv(numbered, name, columns, DELIMITERS[form])


def as_text(value: Any, name: str, line: int, column: str) -> str:
    """Returns a record's value if it is a text.

    Raises:
      InputError: it is another JSON value.
    """
    if not isinstance(value, str):
        raise InputError(
            f"{name}: line {line} has {json.dumps(value)[:40]} in {column!r}; expected a text"
        )
    return value


def not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    """Returns the error for bytes that are not UTF-8."""
    byte = error.object[error.start]
    return InputError(f"{where} is not UTF-8 (byte {byte:#04x}); expected a file in UTF-8")


def _decode(lines: Iterable[bytes], name: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        try:
            # Some programs put a byte order mark first. It is not part of the text.
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise not_utf8(f"{name}: line {number}", error) from error


def _from_csv(
    numbered: Iterator[tuple[int, str]], name: str, columns: Sequence[str], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    # strict: an unclosed quote is an error. Otherwise its field would contain the rest of the file.
    reader = csv.reader((line for _, line in numbered), delimiter=delimiter, strict=True)
    header, positions, begins = None, [], 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            where = f"the record of line {begins}" if begins < reader.line_num else f"line {begins}"
            raise InputError(
                f"{name}: {where} is not a {delimiter!r}-separated record ({error}); "
                "is a closing quote missing?"
            ) from error
        line, begins = begins, reader.line_num + 1
        if fields is None:
            if header is None:
                raise InputError(
                    f"{name} is empty; expected a header with the column {columns[0]!r}"
                )
            return
        if not fields:
            continue
        if header is None:
            header = fields
            positions = [_position(column, header, name) for column in columns]
        elif len(fields) != len(header):
            raise InputError(
                f"{name}: line {line} has {len(fields)} fields; expected {len(header)}, as in the header"
            )
        else:
            yield line, [fields[i] for i in positions]


def _position(column: str, header: list[str], name: str) -> int:
    if header.count(column) != 1:
        raise InputError(
            f"{name} has {'no' if column not in header else 'more than one'} column {column!r};"
            f" its columns are {', '.join(header)}"
        )
    return header.index(column)


def _from_jsonl(
    numbered: Iterator[tuple[int, str]], name: str, columns: Sequence[str]
) -> Iterator[tuple[int, list[Any]]]:
    for number, line in numbered:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}: line {number} is not JSON: {error}") from error
        for column in columns:
            if not isinstance(record, dict) or column not in record:
                found = f"fields {', '.join(record)}" if isinstance(record, dict) else "no object"
                raise InputError(f"{name}: line {number} has {found}; expected a field {column!r}")
        yield number, [record[column] for column in columns]


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
