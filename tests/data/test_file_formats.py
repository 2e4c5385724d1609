"""Texts are read from every format as they were written; messages name the line of a fault."""

import csv
import io
import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data.file_formats import as_they_come, format_of, in_chunks, read_texts
from bahdanau_jax.errors import InputError

# UTF-8 cannot hold half surrogate pairs.
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def read(data: bytes, form: str, column: str = "text") -> list[str]:
    return list(read_texts(io.BytesIO(data), name="a file", form=form, column=column))


@given(st.lists(st.tuples(any_text, any_text)))
@pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_csv_and_tsv_are_read_as_the_csv_module_writes_them(form, delimiter, rows):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([("label", "text"), *rows])
    texts = [text for _, text in rows]
    assert read(file.getvalue().encode(), form) == texts
    assert read(b"\xef\xbb\xbf" + file.getvalue().encode(), form, "label") == [x for x, _ in rows]


@given(st.lists(any_text))
def test_json_lines_are_read_as_json_writes_them(texts):
    lines = [json.dumps({"label": 1, "text": text}, ensure_ascii=False) for text in texts]
    assert read("\n\n".join(lines).encode(), "jsonl") == texts


def test_txt_has_a_text_on_each_line_even_an_empty_one():
    assert read("é fine\r\n\n film\u2028good \n last".encode(), "txt") == [
        "é fine",
        "",
        " film\u2028good ",
        " last",
    ]
    assert read(b"", "txt") == []


@pytest.mark.parametrize(
    ("data", "form", "message"),
    [
        (b"", "csv", "a file is empty; expected a header with the column 'text'"),
        (b"id,body\n1,x\n", "csv", "no column 'text'; its columns are id, body"),
        (b"text,text\na,b\n", "csv", "more than one column 'text'"),
        (b"id,text\n1,a\n\n2,b,c\n", "csv", "line 4 has 3 fields; expected 2"),
        (b"id\ttext\n1\ta\n2\n", "tsv", "line 3 has 1 fields; expected 2"),
        (b'id,text\n1,"a\nb"\n2,"c\nd\ne', "csv", "the record of line 4 is not a ','-separated"),
        (b'text\n"a" b\n', "csv", "line 2 is not a ','-separated record"),
        (b'text\n"' + b"a\n" * 100_000, "csv", "line 2 .* is a closing quote missing"),
        (b"text\nfine\ncaf\xe9\n", "csv", "line 3 is not UTF-8 .byte 0xe9."),
        (b"fine\n\xff\xfea\x00", "txt", "line 2 is not UTF-8"),
        (b'{"text": "a"}\n\n{"text": \n', "jsonl", "line 3 is not JSON"),
        (b'{"text": "a"}\n{"body": "a"}\n', "jsonl", "line 2 has fields body; expected a field"),
        (b'["a"]\n', "jsonl", "line 1 has no object"),
        (b'{"text": null}\n', "jsonl", "line 1 has null in 'text'; expected a text"),
        (b"[" * 100_000, "jsonl", "line 1 is not JSON"),
    ],
    ids=range(15),
)
def test_a_message_names_the_line_of_a_fault(data, form, message):
    with pytest.raises(InputError, match=message) as caught:
        read(data, form)
    assert "\n" not in str(caught.value)


def test_the_ending_of_a_name_gives_the_format():
    assert [format_of(x) for x in ("a.b.csv", "/x/y.TSV", "a.jsonl", "a.txt")] == [
        "csv",
        "tsv",
        "jsonl",
        "txt",
    ]
    for name in ("reviews", "reviews.json", ".csv.gz"):
        with pytest.raises(InputError, match="expected a name that ends with .csv, .tsv"):
            format_of(name)


def test_a_line_is_read_only_when_its_text_is_asked_for():
    lines = iter([b"text\n", *[b"fine\n"] * 9])
    texts = read_texts(lines, name="x", form="csv", column="text")
    assert next(texts) == "fine"
    assert len(list(lines)) == 8


@given(st.lists(any_text), st.integers(1, 5))
def test_chunks_hold_the_texts_in_order(texts, size):
    for chunks in (list(in_chunks(texts, size)), list(as_they_come(texts, size))):
        assert [text for chunk in chunks for text in chunk] == texts
        assert all(0 < len(chunk) <= size for chunk in chunks)
    assert all(len(chunk) == size for chunk in list(in_chunks(texts, size))[:-1])


@pytest.mark.parametrize("chunked", [in_chunks, as_they_come])
def test_texts_before_a_fault_are_yielded(chunked):
    texts = read_texts([b"a\n", b"b\n", b"c\n", b"\xff"], name="x", form="txt", column="")
    got = []
    with pytest.raises(InputError, match="line 4"):
        for chunk in chunked(texts, 2):
            got += chunk
    assert got == ["a", "b", "c"]


def test_a_line_can_be_answered_before_the_next_one_arrives():
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as lines, open(write_end, "wb", buffering=0) as pipe:
        texts = read_texts(lines, name="pipe", form="txt", column="")
        chunks = as_they_come(texts, 100)
        for line in (b"one", b"two"):
            pipe.write(line + b"\n")
            assert next(chunks) == [line.decode()]
        pipe.close()
        assert list(chunks) == []
    assert threading.active_count() < 10
