"""Blocks of columns hold the rows that Python's `csv` module reads, and their lines; faults are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data.csv_blocks import row_blocks
from bahdanau_jax.data.csv_rows import csv_rows
from bahdanau_jax.data.sniff import Layout, open_lines
from bahdanau_jax.errors import InputError

NASTY = [
    '"',
    '""',
    ",",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\0",
    "é",
    "店",
    "\ufeff",
    "\udce9",
    "a",
    "b" * 90,
    " ",
]
PLAIN = [
    "fine,pos\n",
    '"a, ""b""",neg\n',
    '"two\n\nlines",pos\r\n',
    ",\n",
    '"",""\n',
    "\n",
    '"\r",\udce9\n',
]


def content(rows):
    return st.lists(rows, max_size=12).map("".join)


def taken(rows):
    """The rows until a fault, and its message."""
    found = []
    try:
        for row in rows:
            found += row if isinstance(row, list) else [row]
    except InputError as error:
        return found, str(error)
    return found, ""


def in_columns(path, layout, size):
    for width, lines, column in row_blocks(path, layout, size):
        columns = [column(i) for i in range(width)]
        columns = [x if isinstance(x, list) else x.to_pylist() for x in columns]
        yield list(zip(lines.tolist(), map(list, zip(*columns, strict=True)), strict=True))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("csv") / "a.csv"


@given(
    content(st.one_of(st.sampled_from(PLAIN), st.lists(st.sampled_from(NASTY)).map("".join))),
    st.sampled_from(["yes", "no"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([8, 64, 2**20]),
)
def test_rows_lines_and_faults_are_those_of_the_csv_module(path, text, quoting, encoding, size):
    text = text if encoding != "utf-16" else text.replace("\udce9", "é")
    path.write_bytes(text.encode(encoding, "surrogateescape"))
    layout = Layout("csv", "", ",", quoting, encoding, newline="\n")
    with open_lines(path, layout) as file:
        rows, fault = taken(csv_rows(file, str(path), ",", quoting=quoting == "yes"))
    found, same_fault = taken(in_columns(path, layout, size))
    assert same_fault == fault
    # Rows of the block of a fault are not yielded.
    assert found == rows[: len(found)] and (fault or len(found) == len(rows))


def test_plain_blocks_need_no_row_by_row_reading(path, monkeypatch):
    path.write_text("".join(row for row in PLAIN if "\udce9" not in row) * 50, newline="")
    layout = Layout("csv", "", ",", "yes", "utf-8", newline="\n")
    expected, _ = taken(in_columns(path, layout, 2**20))
    monkeypatch.setattr("bahdanau_jax.data.csv_blocks.csv_rows", None)
    for size in (64, 1_000):
        assert taken(in_columns(path, layout, size)) == (expected, "")
    assert len(expected) == 250 and expected[2] == (3, ["two\n\nlines", "pos"])
