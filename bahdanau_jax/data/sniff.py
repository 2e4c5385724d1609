"""Guesses how a file of texts is written: its format, encoding, delimiter, quoting and header."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from bahdanau_jax.data.open_file import open_bytes, without_compression
from bahdanau_jax.data.quoting import guess_quoting
from bahdanau_jax.errors import InputError

FORMATS = ("csv", "tsv", "jsonl", "json", "fasttext", "parquet", "arrow")
# Bytes that are no valid text are decoded to these, so that a message can name the row. JSON may hold
# halves of surrogate pairs as well.
NOT_TEXT = re.compile("[\ud800-\udfff]")
_SAMPLE = 2**20  # bytes that format, delimiter and header are guessed from
_BLOCK = 2**20
# The first wins if several fit; texts have commas more often than tabs.
_DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ENDINGS = {"tab": "tsv", "ndjson": "jsonl", "feather": "arrow"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a file is written. "" where the file decides, as `config.data` documents."""

    format: str = ""
    header: str = ""
    delimiter: str = ""
    quoting: str = ""
    encoding: str = ""
    escape: str = ""  # before a quote inside a quoted field
    newline: str = ""  # "\n" where lines end with it, and "\r" alone ends none
    stray: int = 0  # carriage returns inside unquoted lines

    def __str__(self) -> str:
        """As in "tab-separated, no quoting, UTF-8"."""
        if self.format in ("parquet", "arrow"):
            return self.format.capitalize()
        encoding = self.encoding.removesuffix("-sig").replace("utf", "UTF")
        if self.format != "csv":
            return f"{self.format}, {encoding}"
        name = _DELIMITERS.get(self.delimiter, repr(self.delimiter))
        quoting = "quoting" if self.quoting == "yes" else "no quoting"
        quoting += f" with {self.escape}" if self.escape else ""
        return f"{name}-separated, {quoting}, {encoding}"


def open_lines(path: Path, layout: Layout) -> IO[str]:
    """Opens a text file. Invalid bytes become `NOT_TEXT`."""
    return io.TextIOWrapper(
        open_bytes(path), layout.encoding, errors="surrogateescape", newline=layout.newline
    )


def utf8_blocks(file: IO[bytes], encoding: str, size: int) -> Iterator[bytes]:
    """Blocks of about `size` bytes in UTF-8, without a byte order mark.

    Bytes that are not text stay as they are in UTF-8. Those of other encodings become surrogates.
    """
    name = codecs.lookup(encoding).name
    blocks = iter(lambda: file.read(size), b"")
    if name == "utf-8-sig":
        yield next(blocks, b"").removeprefix(codecs.BOM_UTF8)
    if name.startswith("utf-8"):
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    for block in blocks:
        yield decoder.decode(block).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def sniff(path: Path, given: Layout) -> Layout:
    """Fills in what `given` leaves open, except `header`.

    The first megabyte decides on format and delimiter, the whole file on encoding and quoting.

    Raises:
      InputError: the file cannot be read, or its format or encoding cannot be guessed.
    """
    with open_bytes(path) as file:
        start = file.read(_SAMPLE)
    form, delimiter = given.format or _format_of(path, start), given.delimiter.replace("\\t", "\t")
    if len(delimiter) > 1 and given.quoting == "yes":
        raise InputError(
            f"config.data.delimiter is {delimiter!r}; expected one character with config.data.quoting=yes"
        )
    if form in ("parquet", "arrow"):
        return dataclasses.replace(given, format=form)
    encoding = check_encoding(given.encoding)
    if not encoding:
        with open_bytes(path) as file:
            encoding = guess_encoding(iter(lambda: file.read(_BLOCK), b""), str(path))
    sample = start.decode(encoding, "replace").removeprefix("\ufeff")
    newline = "\n" if "\n" in sample else ""
    layout = dataclasses.replace(given, encoding=encoding, newline=newline)
    lines = [line for line in sample.split(newline or "\r") if line.strip()]
    if len(start) == _SAMPLE and len(lines) > 1:
        lines.pop()  # it is cut
    if form == "tsv":
        form, delimiter = "csv", delimiter or "\t"
    if form in ("", "json") and not given.format:
        form = _format_of_text(sample, lines) or form
    if not form:
        form = "fasttext" if not delimiter and _labels_first(lines) else "csv"
    if form != "csv":
        return dataclasses.replace(layout, format=form)
    delimiter = delimiter or guess_delimiter(lines[:200])
    layout = dataclasses.replace(layout, format="csv", delimiter=delimiter)
    kind, wrapped, stray = guess_quoting(_pieces(path, layout, delimiter), delimiter)
    if (given.quoting or kind) in ("", "no"):
        delimiter = delimiter if given.quoting else wrapped
        return dataclasses.replace(layout, quoting="no", delimiter=delimiter, stray=stray)
    escape = "\\" if kind == "escape" else ""
    return dataclasses.replace(layout, quoting="yes", escape=escape)


def _pieces(path: Path, layout: Layout, delimiter: str) -> Iterator[str]:
    """A file's lines, many at a time."""
    if layout.newline != "\n":
        with open_lines(path, layout) as file:
            yield from file
        return
    # Each byte as a character takes a tenth of the time of decoding. All that matters to rows is ASCII.
    encoding = "latin-1" if delimiter.isascii() else "utf-8"
    held: list[bytes] = []
    with open_bytes(path) as file:
        for block in chain(utf8_blocks(file, layout.encoding, _BLOCK), [b"\n"]):
            lines, end, begun = block.rpartition(b"\n")
            held.append(lines + end)
            if end:
                yield b"".join(held).decode(encoding, "surrogateescape")
                held = []
            held.append(begun)


def _format_of(path: Path, start: bytes) -> str:
    """The format that the file's name or first bytes show, or ""."""
    ending = Path(without_compression(path.name)).suffix.removeprefix(".")
    ending = _ENDINGS.get(ending, ending)
    if ending in FORMATS:
        return ending
    magic = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}
    return next((form for bytes_, form in magic.items() if start.startswith(bytes_)), "")


def _format_of_text(sample: str, lines: Sequence[str]) -> str:
    """ "json" for a list or one object, "jsonl" for an object per line, "fasttext" for labels first, or ""."""
    begin = sample.lstrip()[:1]
    if begin == "[":
        return "json"
    if begin == "{":
        try:
            json.loads(lines[0])
        except ValueError:
            return "json"
        return "jsonl" if len(lines) > 1 else "json"
    return "fasttext" if sample.lstrip().startswith("__label__") else ""


def _labels_first(lines: Sequence[str]) -> bool:
    """Whether lines look like "DESC:def What is an atom?": few first words, no delimiter."""
    words = [line.split(None, 1)[0] for line in lines]
    separated = any(
        len({line.count(d) for line in lines[:200]}) == 1 and d in lines[0] for d in _DELIMITERS
    )
    return len(words) > 3 and 2 <= len(set(words)) <= len(words) / 3 and not separated


def check_encoding(encoding: str) -> str:
    """Returns the name of an encoding if Python knows it, or "".

    Raises:
      InputError: it does not.
    """
    try:
        "".encode(encoding or "utf-8")
    except (LookupError, ValueError) as error:
        raise InputError(
            f"config.data.encoding is {encoding!r}; expected one of Python's, such as 'gb18030'"
        ) from error
    return encoding


def guess_encoding(blocks: Iterable[bytes], name: str) -> str:
    """UTF-8, UTF-16, or windows-1252 if most bytes beyond ASCII are no UTF-8.

    Raises:
      InputError: neither is likely.

    Example:
      >>> guess_encoding([b"caf", "é in Québec".encode("latin-1")], "a"), guess_encoding([b"a"], "a")
      ('windows-1252', 'utf-8')
    """
    blocks = iter(blocks)
    first = next(blocks, b"")
    for mark, encoding in _BOMS.items():
        if first.startswith(mark):
            return encoding
    if first.count(0) > len(first) / 4:  # ASCII in UTF-16 has a zero in each pair of bytes
        return "utf-16-le" if first[1::2].count(0) > first[::2].count(0) else "utf-16-be"
    total = bad = good = runs = 0
    rest = b""  # of a character that goes on in the next block
    for block in chain([first], blocks, [b""]):
        total += len(block)
        data = rest + block
        try:
            _, used = codecs.utf_8_decode(data, "strict", not block)
            good += np.count_nonzero(np.frombuffer(data[:used], np.uint8) >= 0xC0)
        except UnicodeDecodeError:
            text, used = codecs.utf_8_decode(data, "surrogateescape", not block)
            wrong = len(NOT_TEXT.findall(text))
            good += len(text) - len(text.encode("ascii", "ignore")) - wrong
            bad += wrong
            runs += len(re.findall(f"{NOT_TEXT.pattern}+", text))
        rest = data[used:]
    if bad <= good:
        return "utf-8"
    if bad > total / 5 and bad > 1.5 * runs:  # letters with accents seldom stand side by side
        raise InputError(
            f"{name}: {bad:,} of {total:,} bytes are not UTF-8; expected config.data.encoding, such as "
            "'gb18030', 'shift_jis' or 'windows-1251'"
        )
    return "windows-1252"


def guess_delimiter(lines: Sequence[str]) -> str:
    """The delimiter of which most lines have the same number.

    Example:
      >>> guess_delimiter(["text;label", "fine, really, fine;1"])
      ';'
    """

    def score(delimiter: str) -> float:
        rows = csv.reader(lines, delimiter=delimiter)
        try:
            counts = [len(row) for row in rows if row]
        except csv.Error:
            counts = [1 + line.count(delimiter) for line in lines]
        usual = max(set(counts), key=counts.count, default=1)
        return counts.count(usual) / len(counts) if usual > 1 else 0

    csv.field_size_limit(2 * _SAMPLE)
    scores = {delimiter: score(delimiter) for delimiter in _DELIMITERS}
    return max(scores, key=scores.__getitem__) if any(scores.values()) else ","
