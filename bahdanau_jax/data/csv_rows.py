"""Reads rows of CSV and its kin one by one, with Python's `csv` module, and names the line of a fault."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from bahdanau_jax.errors import InputError

# Characters of a CSV field. A quote without its pair would otherwise take the rest of the file.
LONGEST = 2**26


def csv_rows(
    lines: Iterable[str],
    name: str,
    delimiter: str,
    *,
    quoting: bool,
    escape: str = "",
    first: int = 1,
    width: int = 0,
) -> Iterator[tuple[int, list[str]]]:
    r"""Yields line and fields of each record, and of the header if there is one. Skips blank lines.

    Args:
      lines: lines with their ends.
      name: of the file, for messages.
      delimiter: one character; without quoting also more. '","' takes the quotes at a line's ends as well.
      quoting: whether quotes enclose fields.
      escape: a character before a quote inside quotes, besides a doubled quote.
      first: the number of the first line.
      width: fields of a record. 0: as many as the first has.

    Raises:
      InputError: a quote is not closed, or a record has more or fewer fields than the first.

    Example:
      >>> list(csv_rows(["a,b\n", '"fine,\n', 'really",1\n'], "x", ",", quoting=True))
      [(1, ['a', 'b']), (2, ['fine,\nreally', '1'])]
    """
    if quoting:
        rows = _quoted(lines, name, delimiter, escape, first)
    else:
        rows = _unquoted(lines, delimiter, first)
    for line, fields in rows:
        width = width or len(fields)
        if len(fields) != width:
            raise InputError(
                f"{name}: line {line} has {len(fields)} fields; expected {width}, as in the first row"
            )
        yield line, fields


def _unquoted(lines: Iterable[str], delimiter: str, first: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=first):
        line = line.rstrip("\r\n")
        if line:
            line = line[1:-1] if delimiter[0] == '"' else line
            yield number, line.replace("\r", " ").split(delimiter)


def _quoted(
    lines: Iterable[str], name: str, delimiter: str, escape: str, first: int
) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST)
    # strict: an unclosed quote is an error. Otherwise its field would contain the rest of the file.
    reader = csv.reader(lines, delimiter=delimiter, escapechar=escape or None, strict=True)
    begins = first
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            where = f"line {begins}"
            if begins < first - 1 + reader.line_num:
                where = f"the record of {where}"
            if "new-line character" in str(error):
                raise InputError(
                    f"{name}: {where} has a carriage return inside an unquoted field; expected it in quotes"
                ) from error
            raise InputError(
                f"{name}: {where} is not a {delimiter!r}-separated record ({error}); is a closing quote "
                "missing? With config.data.quoting=no, quotes are characters like others"
            ) from error
        line, begins = begins, first + reader.line_num
        if fields is None:
            return
        if fields:
            yield line, fields
