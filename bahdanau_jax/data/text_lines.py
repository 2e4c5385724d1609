"""Reads a text a line, from files and pipes. Exported `.pyz` files carry this file."""

import codecs
import re
from collections.abc import Callable, Iterator
from typing import IO

_BLOCK = 2**20  # bytes
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LINE_END = re.compile(rb"\r\n|\r|\n")

BAD_BYTES = "texts with bad bytes, read as U+FFFD"
WINDOWS = "texts that are not UTF-8, read as windows-1252"


def text_lines(
    stream: IO[bytes], count: Callable[[str, int], object], encoding: str = ""
) -> Iterator[list[str]]:
    r"""Yields the lines that have arrived so far, without their ends and without waiting for more.

    A process at the other end of a pipe may wait for an answer before it writes its next line. LF, CRLF and CR
    end a line; U+2028 and other separators are part of a text. A byte order mark is dropped.

    Args:
      stream: the lines.
      count: takes what is odd about a line, and its number.
      encoding: of the lines. "": UTF-8, or UTF-16 if a byte order mark announces it. Lines that are neither are
        read as windows-1252 as long as most characters beyond ASCII are not UTF-8.

    Example:
      >>> import io
      >>> list(text_lines(io.BytesIO(b"\xef\xbb\xbffine\r\n\rcaf\xe9"), print))
      texts that are not UTF-8, read as windows-1252 3
      [['fine', ''], ['café']]
    """
    decode, number = _Decoder(count, guess=not encoding), 0
    for block in _blocks(stream, encoding):
        yield [decode(line, number) for number, line in enumerate(block, start=number + 1)]
        number += len(block)


def _blocks(stream: IO[bytes], encoding: str) -> Iterator[list[bytes]]:
    """The lines that have arrived so far, in UTF-8 or not yet known."""
    data = stream.read1(_BLOCK)  # pyright: ignore[reportAttributeAccessIssue]
    marks = (codecs.BOM_UTF8, *_UTF16)
    while data and any(mark.startswith(data) for mark in marks):
        more = stream.read1(_BLOCK)  # pyright: ignore[reportAttributeAccessIssue]
        if not more:
            break
        data += more
    if data.startswith(_UTF16) and not encoding:
        encoding = "utf-16"
    decoder = None
    if encoding and codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig"):
        decoder = codecs.getincrementaldecoder(encoding)("replace")
    data, rest, after_return = data.removeprefix(codecs.BOM_UTF8), b"", False
    while data:
        if decoder is not None:
            data = decoder.decode(data).encode("utf-8", "replace")
        if data:  # else a half of a character
            if after_return:
                data = data.removeprefix(b"\n")
            after_return = data.endswith(b"\r")
            *lines, rest = _LINE_END.split(rest + data)
            if lines:
                yield lines
        data = stream.read1(_BLOCK)  # pyright: ignore[reportAttributeAccessIssue]
    if rest:
        yield [rest]


class _Decoder:
    """Decodes lines of UTF-8, and of windows-1252 if `guess`."""

    def __init__(self, count: Callable[[str, int], object], *, guess: bool):
        self._count, self._guess = count, guess
        self._bad = self._good = 0  # characters beyond ASCII that are not UTF-8, or are

    def __call__(self, line: bytes, number: int) -> str:
        text = line.decode("utf-8", "surrogateescape")
        if text.isascii():
            return text
        beyond = [letter for letter in text if letter > "\x7f"]
        bad = sum("\ud800" <= letter <= "\udfff" for letter in beyond)
        self._bad, self._good = self._bad + bad, self._good + len(beyond) - bad
        if bad and self._guess and self._bad > self._good:
            self._count(WINDOWS, number)
            return line.decode("windows-1252", "replace")
        if bad or "\ufffd" in beyond:
            self._count(BAD_BYTES, number)
            return re.sub("[\ud800-\udfff]", "\ufffd", text)
        return text
