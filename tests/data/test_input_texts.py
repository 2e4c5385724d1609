"""Texts to predict come as training reads them: every format, in order, none left out; faults in one line."""

import csv
import gzip
import io
import json
import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data.input_texts import TextsOfFile, as_they_come, in_chunks, open_texts
from bahdanau_jax.data.sniff import Layout
from bahdanau_jax.errors import InputError

TEXTS = ["fine, superb film", 'dull "awful" thing', "", "Zażółć gęślą", "boring"]
RECORDS = [{"id": i, "text": text, "stars": i % 2} for i, text in enumerate(TEXTS)]
JSON_LINES = "\n".join(map(json.dumps, RECORDS))
# UTF-8 cannot hold half surrogate pairs.
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def table(rows, encoding="utf-8", **dialect):
    file = io.StringIO(newline="")
    csv.writer(file, **dialect).writerows(rows)
    return file.getvalue().encode(encoding)


def rows_of(*names):
    return [names, *([record[name] for name in names] for record in RECORDS)]


def parquet(columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def texts_of(path, content, columns=("text",), **layout):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TextsOfFile(path, columns, Layout(**layout))


FILES = {
    "a.csv": table(rows_of("id", "text", "stars")),
    "semicolons.csv": table(rows_of("id", "text", "stars"), "utf-8-sig", delimiter=";"),
    "a.tsv": table(rows_of("text", "stars"), delimiter="\t"),
    "excel.tsv": table(rows_of("text", "id"), "utf-16", delimiter="\t"),
    "one.csv": table([["review"], *([text] for text in TEXTS)]),
    "headless.csv": table([[text] for text in TEXTS]),
    "two.csv": table([["id", "review"], *enumerate(TEXTS)]),
    "a.csv.gz": gzip.compress(table(rows_of("id", "text"))),
    "compressed.csv": gzip.compress(table(rows_of("id", "text"))),
    "plain.csv.gz": table(rows_of("id", "text")),
    "a.jsonl": JSON_LINES,
    "a.ndjson.zst": pa.compress(JSON_LINES.encode(), "zstd", asbytes=True),
    "a.json": json.dumps({"data": RECORDS}),
    "null.json": json.dumps([record | {"text": record["text"] or None} for record in RECORDS]),
    "a.parquet": parquet({"text": TEXTS, "stars": range(5)}),
    "a.txt": "\n".join(TEXTS),
    "windows.txt": "\ufeff" + "\r\n".join(TEXTS) + "\r\n",
    "old mac.txt": "\r".join(TEXTS).encode("utf-16"),
    "without ending": "\n".join(TEXTS),
    "labelled.txt": "".join(f"{text}\t1\n" for text in TEXTS),
    "fasttext.txt": "".join(f"__label__{i % 2} {text}\n" for i, text in enumerate(TEXTS)),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_texts(tmp_path, name):
    texts = texts_of(tmp_path / name, FILES[name], ("body", "text"))  # "body" as in a run's config
    assert list(texts) == list(texts) == TEXTS and len(texts) == 5
    assert texts.notes[0].startswith(f"reading {name} as ")
    assert len(texts.notes) == 2 and "empty texts, predicted like others: 1 (" in texts.notes[1]


@given(st.lists(st.tuples(any_text, any_text), min_size=1))
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_what_the_csv_module_writes_is_read_as_it_was(tmp_path_factory, delimiter, rows):
    path = tmp_path_factory.mktemp("a") / "a.csv"
    content = table([("label", "text"), *rows], delimiter=delimiter)
    texts = texts_of(path, content, delimiter=delimiter, quoting="yes", encoding="utf-8")
    assert list(texts) == [text for _, text in rows]


def test_bad_bytes_are_counted_and_windows_1252_is_known(tmp_path):
    texts = texts_of(tmp_path / "a.csv", "text,id\né,1\nà,2\nü,3\n".encode() + b"\xff,4\n")
    assert list(texts) == ["é", "à", "ü", "\ufffd"]
    assert "bad bytes, read as U+FFFD: 1 (the first: line 5)" in texts.notes[1]
    texts = texts_of(tmp_path / "b.txt", "Garçon à Québec, déjà\nvu".encode("latin-1"))
    assert list(texts) == ["Garçon à Québec, déjà", "vu"] and "windows-1252" in texts.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv is empty; expected a header with the column 'text'"),
        ("a.csv", b"id,body,c\n1,x,y\n", "no column 'text'; its columns are id, body, c"),
        ("a.csv", b"text,text\na,b\n", "more than one column 'text'"),
        ("a.csv", b"id,text\n1,a\n\n2,b,c\n", "line 4 has 3 fields; expected 2"),
        ("a.tsv", b"id\ttext\n1\ta\n2\n", "line 3 has 1 fields; expected 2"),
        ("a.csv", b'id,text\n1,"a\nb"\n2,"c\nd\ne', "the record of line 4 is not a ','-separated"),
        ("a.csv", b'id,text\n1,"a,b" b\n', "line 2 is not .*With --quoting=no, quotes are char"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', "line 3 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "a"}\n', "line 2 has fields body; expected a field"),
        ("a.jsonl", b'{"text": "a"}\n["a"]\n', "line 2 has no object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', "line 2 has 3 in 'text'; expected a text"),
        ("a.json", b"[" * 100_000, "a.json is not JSON"),
        ("a.parquet", b"PAR1", "a.parquet cannot be read"),
        ("a.csv", "字".encode("gb18030") * 9, "not UTF-8; expected --encoding, such as 'gb18030'"),
        ("a.xlsx", b"PK\x03\x04", "a workbook .*; expected the file inside"),
    ],
    ids=range(15),
)
def test_a_message_names_the_line_of_a_fault(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_texts(str(tmp_path / name), ["text"], Layout(), size=9, say=print)
    assert "\n" not in str(caught.value)


def stdin(monkeypatch, content):
    stream = io.BufferedReader(io.BytesIO(content))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))


@pytest.mark.parametrize("form", ["txt", "jsonl", "csv", "parquet"])
def test_stdin_gives_the_same_texts(monkeypatch, form):
    name = {"csv": "a.csv.gz"}.get(form, f"a.{form}")
    content, said = FILES[name], []
    stdin(monkeypatch, content.encode() if isinstance(content, str) else content)
    chunks, total = open_texts("-", ["text"], Layout(form), size=2, say=said.append)
    assert [text for chunk in chunks for text in chunk] == TEXTS
    assert total == (None if form in ("txt", "jsonl") else 5)
    assert total is None or said[0].startswith("reading stdin as ")


def test_stdin_counts_what_is_no_utf_8(monkeypatch):
    stdin(monkeypatch, "é".encode() + b"\n\xff\n")
    said = []
    chunks, _ = open_texts("-", ["text"], Layout(), size=2, say=said.append)
    assert [text for chunk in chunks for text in chunk] == ["é", "\ufffd"]
    assert said == ["stdin: texts with bad bytes, read as U+FFFD: 1 (the first: line 2)"]


@given(st.lists(any_text), st.integers(1, 5))
def test_chunks_hold_the_texts_in_order(texts, size):
    for chunks in (list(in_chunks(texts, size)), list(as_they_come(texts, size))):
        assert [text for chunk in chunks for text in chunk] == texts
        assert all(0 < len(chunk) <= size for chunk in chunks)
    assert all(len(chunk) == size for chunk in list(in_chunks(texts, size))[:-1])


def test_texts_before_a_fault_are_yielded_and_lines_answered_before_the_next_arrives(monkeypatch):
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as lines, open(write_end, "wb", buffering=0) as pipe:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(lines))
        chunks, _ = open_texts("-", ["text"], Layout("jsonl"), size=100, say=print)
        for word in ("one", "two"):
            pipe.write(json.dumps({"text": word}).encode() + b"\n")
            assert next(chunks) == [word]
        pipe.write(b'{"text": "three"}\n{"body": 4}\n')
        pipe.close()
        assert next(chunks) == ["three"]
        with pytest.raises(InputError, match="stdin: line 4 has fields body"):
            next(chunks)
    assert threading.active_count() < 10
