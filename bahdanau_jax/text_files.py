"""Texts in files and pipes, read record by record: CSV, TSV, JSON lines, or one text a line.

A file may be larger than memory. What is not right is named with its line.
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


def format_of(name: str) -> str:
    """What a file's ending says of its format.

    Raises:
      InputError: the ending is none of these.

    Example:
      >>> format_of("reviews.CSV")
      'csv'
    """
    ending = PurePath(name).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise InputError(f"{name}: expected a name that ends with .{', .'.join(FORMATS)}")
    return ending


def read_texts(lines: Iterable[bytes], *, name: str, form: str, column: str) -> Iterator[str]:
    r"""Texts in their order, read as they are asked for.

    Args:
      lines: an open binary file, or any lines of bytes in UTF-8.
      name: the file's, for error messages.
      form: one of `FORMATS`. "txt" has a text on each line, an empty one too; "csv" and "tsv" have a
        header; "jsonl" has an object on each line. Blank lines of the latter three are no records.
      column: the column or field that holds the text; "txt" has none.

    Raises:
      InputError: as the generator gets there: the column is missing, a quote is never closed, a record has
        more or fewer fields than the header, a line is no JSON or not UTF-8; naming the line.

    Example:
      >>> list(read_texts([b"stars,body\n", b'5,"fine, really"\n'], name="a", form="csv", column="body"))
      ['fine, really']
    """
    if form == "txt":
        return (line.rstrip("\r\n") for _, line in _decode(lines, name))
    return _texts(read_records(lines, name=name, form=form, columns=[column]), name, column)


def read_records(
    lines: Iterable[bytes], *, name: str, form: str, columns: Sequence[str]
) -> Iterator[tuple[int, list[Any]]]:
    r"""The values of some columns, record by record, with the line that the record begins at.

    Args:
      lines, name: as `read_texts` has them. No line is taken before the record that it is part of is asked for.
      form: "csv", "tsv" or "jsonl".
      columns: of a header, or fields of every object.

    Yields:
      (line, values): texts, or whatever a JSON field holds.

    Raises:
      InputError: as `read_texts` does.

    Example:
      >>> lines = [b"stars,body\n", b'5,"fine,\n', b'really"\n', b"1,dull\n"]
      >>> list(read_records(lines, name="a", form="csv", columns=["body", "stars"]))
      [(2, ['fine,\nreally', '5']), (4, ['dull', '1'])]
    """
    numbered = _decode(lines, name)
    if form == "jsonl":
        return _from_jsonl(numbered, name, columns)
    return _from_csv(numbered, name, columns, "\t" if form == "tsv" else ",")


def _texts(records: Iterable[tuple[int, list[Any]]], name: str, column: str) -> Iterator[str]:
    for line, (text,) in records:
        yield as_text(text, name, line, column)


def as_text(value: Any, name: str, line: int, column: str) -> str:
    """The value, which must be a text."""
    if not isinstance(value, str):
        raise InputError(
            f"{name}: line {line} has {json.dumps(value)[:40]} in {column!r}; expected a text"
        )
    return value


def _decode(lines: Iterable[bytes], name: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        try:
            # A byte order mark, which some programs put first, is no part of the text.
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}: line {number} is not UTF-8 (byte {line[error.start]:#04x}); expected a file in UTF-8"
            ) from error


def _from_csv(
    numbered: Iterator[tuple[int, str]], name: str, columns: Sequence[str], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    # strict: a quote that is never closed is an error, not a field that takes in the rest of the file.
    reader = csv.reader((line for _, line in numbered), delimiter=delimiter, strict=True)
    header, at, begins = None, [], 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            where = f"the record of line {begins}" if begins < reader.line_num else f"line {begins}"
            raise InputError(
                f"{name}: {where} is no {delimiter!r}-separated record ({error}); is a quote missing its pair?"
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
            for column in columns:
                if header.count(column) != 1:
                    raise InputError(
                        f"{name} has {'no' if column not in header else 'more than one'} column {column!r};"
                        f" its columns are {', '.join(header)}"
                    )
            at = [header.index(column) for column in columns]
        elif len(fields) != len(header):
            raise InputError(
                f"{name}: line {line} has {len(fields)} fields; expected {len(header)}, as the header has"
            )
        else:
            yield line, [fields[i] for i in at]


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
    """Lists of `size` texts, the last one shorter; an InputError comes after what was read before it.

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
    """Lists of the texts that have come by the time that one is asked for: at least one, at most `most`.

    A process at the other end of a pipe may wait for the answer to its line before it writes the next.
    """
    come: queue.Queue[str | Exception | None] = queue.Queue(maxsize=most)

    def read() -> None:
        try:
            for text in texts:
                come.put(text)
        except Exception as error:  # raised again where the chunks are read
            come.put(error)
        else:
            come.put(None)

    # A daemon: Ctrl-C need not wait for a line that may never come.
    threading.Thread(target=read, daemon=True).start()
    chunk: list[str] = []
    while isinstance(item := come.get(), str):
        chunk.append(item)
        if len(chunk) == most or come.empty():
            yield chunk
            chunk = []
    if chunk:
        yield chunk
    if item is not None:
        raise item
