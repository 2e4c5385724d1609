"""Lines come as they arrive, whatever ends them and however the bytes are cut into blocks."""

import io
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data.text_lines import BAD_BYTES, WINDOWS, text_lines


class Pipe:
    """A pipe that hands out the given blocks one by one."""

    def __init__(self, blocks):
        self.blocks = list(blocks)

    def read1(self, size):
        return self.blocks.pop(0) if self.blocks else b""


def lines(data, cuts=(), encoding="", count=lambda what, line: None):
    edges = [0, *sorted(cuts), len(data)]
    blocks = [data[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]
    return [line for block in text_lines(Pipe(blocks), count, encoding) for line in block]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_single_bytes_give_the_same_lines(encoding):
    content = "é\r\n\r\na\r\n".encode(encoding)
    assert lines(content, range(len(content))) == ["é", "", "a"]


@given(
    st.lists(st.text(st.sampled_from("aé\u2028\u0085\x0b ")), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.data(),
)
def test_marks_ends_and_blocks_do_not_matter(texts, end, encoding, data):
    content = "".join(text + end for text in texts).encode(encoding)
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=4))
    assert lines(content, cuts) == texts
    # A file opened by Python agrees.
    assert texts == [
        line.rstrip("\n") for line in io.TextIOWrapper(io.BytesIO(content), encoding=encoding)
    ]


def test_the_last_line_needs_no_end():
    assert lines(b"a\n\nb") == ["a", "", "b"]
    assert lines(b"") == lines(b"\xef\xbb\xbf") == []


def test_bytes_that_are_not_utf_8():
    found = []

    def count(what, line):
        found.append((what, line))

    assert lines(b"caf\xe9\nfine\n\x80 5", count=count) == ["café", "fine", "€ 5"]
    assert found == [(WINDOWS, 1), (WINDOWS, 3)]
    found.clear()
    content = "été ☹\n".encode() + b"cut \xf0\x9f\x98\n"  # part of an emoji among UTF-8
    assert lines(content, count=count) == ["été ☹", "cut \ufffd\ufffd\ufffd"]
    found.clear()
    assert lines("日本\n".encode("shift_jis"), encoding="shift_jis", count=count) == ["日本"]
    assert lines(b"\xe9", encoding="utf-8", count=count) == ["\ufffd"]
    assert found == [(BAD_BYTES, 1)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_line_is_answered_before_the_next_is_written(end):
    read, write = os.pipe()
    deadline = threading.Timer(20, os.close, [write])
    deadline.start()
    with open(read, "rb") as stream:
        blocks = text_lines(stream, print)
        for line in (b"one", b"two"):
            os.write(write, line + end)
            assert next(blocks) == [line.decode()]
        deadline.cancel()
        os.close(write)
        assert list(blocks) == []
