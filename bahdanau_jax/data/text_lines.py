"""Reads a text a line, from files and pipes. Exported `.pyz` files carry this file."""

import codecs
import re
from collections.abc import Iterator
from typing import IO

_BLOCK = 2**20  # bytes
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LINE_END = re.compile(rb"\r\n|\r|\n")


def text_lines(stream: IO[bytes]) -> Iterator[list[bytes]]:
    r"""Yields the lines that have arrived so far, without their ends and without waiting for more.

    A process at the other end of a pipe may wait for an answer before it writes its next line. LF, CRLF and CR
    end a line; U+2028 and other separators are part of a text. A byte order mark is dropped, and UTF-16, which
    it announces, becomes UTF-8.

    Example:
      >>> import io
      >>> list(text_lines(io.BytesIO(b"\xef\xbb\xbffine\r\n\rdull")))
      [[b'fine', b''], [b'dull']]
    """
    data = stream.read1(_BLOCK)  # pyright: ignore[reportAttributeAccessIssue]
    marks = (codecs.BOM_UTF8, *_UTF16)
    while data and any(mark.startswith(data) for mark in marks):
        more = stream.read1(_BLOCK)  # pyright: ignore[reportAttributeAccessIssue]
        if not more:
            break
        data += more
    utf16 = codecs.getincrementaldecoder("utf-16")("replace") if data.startswith(_UTF16) else None
    data, rest, after_return = data.removeprefix(codecs.BOM_UTF8), b"", False
    while data:
        if utf16 is not None:
            data = utf16.decode(data).encode("utf-8", "replace")
        if after_return:
            data = data.removeprefix(b"\n")
        after_return = data.endswith(b"\r")
        *lines, rest = _LINE_END.split(rest + data)
        if lines:
            yield lines
        data = stream.read1(_BLOCK)  # pyright: ignore[reportAttributeAccessIssue]
    if rest:
        yield [rest]
