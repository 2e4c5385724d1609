"""Files of many programs are read as they were written. Each change is counted and reported."""

import csv
import gzip
import io
import json
import os

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data.csv_rows import csv_rows
from bahdanau_jax.data.files import load_files
from bahdanau_jax.data.quoting import guess_quoting
from bahdanau_jax.data.sniff import guess_delimiter, guess_encoding
from bahdanau_jax.errors import InputError

ROWS = [(f"review {i} film", "ab"[i % 2]) for i in range(30)]
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
CHINESE = ("text,label\n" + "".join(f"这家酒店的环境很好{i},{i % 2}\n" for i in range(30))).encode(
    "gb18030"
)


def read(folder, name, content, **fields):
    """All (text, label) of a file, and the notes."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = load_files(str(path), **fields)
    parts = (dataset.train, dataset.validation, dataset.read_test())
    pairs = {
        (text, dataset.label_names[label])
        for part in parts
        for text, label in zip(part.texts, part.labels, strict=True)
    }
    assert len(pairs) == sum(map(len, parts))
    return pairs, "\n".join(dataset.notes)


def written(fields, end="\n", **options):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, **options).writerows(fields)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV.encode("utf-8-sig")),
        ("a.csv", CSV.encode("utf-16")),
        ("a.csv", CSV.encode("utf-16-be")),
        ("a.csv", CSV.replace("\n", "\r\n") + "\r\n\r\n"),
        ("a.csv", CSV.replace("\n", "\r")),
        ("a.csv", CSV.replace(",", ";")),
        ("a", CSV.replace(",", "|")),
        (
            "a.csv",
            written([("label", " text "), *((y, x) for x, y in ROWS)], quoting=csv.QUOTE_ALL),
        ),
        ("a.csv", "".join(CSV.splitlines(keepends=True)[1:])),
        ("a.csv.gz", gzip.compress(CSV.encode())),
        ("a.tsv.zst", pa.compress(CSV.replace(",", "\t").encode(), "zstd", asbytes=True)),
        ("a.json", json.dumps({"version": 1, "data": [{"text": x, "label": y} for x, y in ROWS]})),
        ("a.json", json.dumps([{"label": [y], "text": x} for x, y in ROWS], indent=1)),
        ("a.csv", CSV.replace(",b", ", b ").replace("text,label", "text, label")),
    ],
    ids=range(14),
)
def test_one_table_in_many_layouts(tmp_path, name, content):
    pairs, notes = read(tmp_path, name, content)
    assert pairs == set(ROWS)
    assert notes.startswith(f"reading {name} as ")


fields = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20)


@given(
    st.lists(st.tuples(fields, fields)),
    st.sampled_from([",", "\t", ";"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_the_csv_module_writes_is_read_as_it_was(rows, delimiter, quoting):
    rows = [("text", "label"), *rows]
    content = written(rows, delimiter=delimiter, quoting=quoting)
    kind, found, _ = guess_quoting(io.StringIO(content, newline="\n"), delimiter)
    lines = io.StringIO(content, newline="\n")
    split = csv_rows(lines, "a", found, quoting=bool(kind), escape="\\" * (kind == "escape"))
    assert [tuple(row) for _, row in split] == rows


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([r'"He said \"hi, you\" twice",a'], 'He said "hi, you" twice'),
        (['"He said "hi" twice","a"', *(f'"{x}","{y}"' for x, y in ROWS)], 'He said "hi" twice'),
        (['"Be noble" - none of it,a'], '"Be noble" - none of it'),
        (['"He said ""hi""\nand, left",a'], 'He said "hi"\nand, left'),
    ],
)
def test_quotes_inside_texts(tmp_path, rows, text):
    head, plain = ('"text","label"\n', "") if len(rows) > 1 else ("text,label\n", CSV[11:])
    pairs, _ = read(tmp_path, "a.csv", head + "\n".join(rows) + "\n" + plain)
    assert pairs == {*ROWS, (text, "a")}


def test_rows_between_two_quotes_are_not_swallowed_without_a_word(tmp_path):
    swallowed = '"A masterpiece\ta\nvery dull\tb\nof its time"\ta\n'
    pairs, notes = read(tmp_path, "a.tsv", CSV.replace(",", "\t") + swallowed)
    assert {("very dull", "b"), ('of its time"', "a")} <= pairs and "no quoting" in notes
    # Elsewhere quotes are needed, so it may be a text of three lines.
    swallowed = swallowed.replace("\t", ",") + '"fine, really",b\n'
    pairs, notes = read(tmp_path, "a.csv", CSV + swallowed)
    assert len(pairs) == 32
    assert (
        "hold a line like a row (if a quote lacks its pair, set config.data.quoting=no): 1 "
        in notes
    )
    assert "(the first: line 32)" in notes


@pytest.mark.parametrize(
    ("content", "fields", "text", "note"),
    [
        ("café in Québec,a\n".encode("latin-1"), {}, "café in Québec", "windows-1252"),
        (b"love \xf0\x9f\x87\xba\xe2,a\n", {}, "love \U0001f1fa\ufffd", "bad bytes, read as U+FFFD: 1 "),
        ("naïve \r one,a\n".encode(), {}, "naïve   one", "carriage returns inside lines, read as blanks: 1"),
        (b"price \x80 5,a\n", {"encoding": "windows-1252"}, "price € 5", "windows-1252"),
        (("word, " * 25_000).join('""').encode() + b",a\n", {}, "word, " * 25_000, "comma-separated, quoting"),
    ],
    ids=range(5),
)  # fmt: skip
def test_odd_bytes_and_long_texts(tmp_path, content, fields, text, note):
    pairs, notes = read(tmp_path, "a.csv", CSV.encode() + content, **fields)
    assert pairs == {*ROWS, (text, "a")}
    assert note in notes


@pytest.mark.parametrize(
    ("name", "content", "fields", "message"),
    [
        ("a.csv", CSV.encode() + b"\xc3\xa9 \xe9,a\n", {"bad_bytes": "refuse"}, "line 32 has bytes in 'text'"),
        ("a.csv", CHINESE, {}, "bytes are not UTF-8; expected config.data.encoding, such as 'gb18030'"),
        ("a.csv", CSV, {"encoding": "nonsense"}, "config.data.encoding is 'nonsense'; expected one"),
        ("a.csv", CSV, {"header": "no", "text": "x"}, "no column 'x'; it has no header; expected a number"),
        ("a.csv", CSV, {"text": "3"}, "a.csv has no column '3'; its columns are text, label"),
        ("a.csv.gz", gzip.compress(CSV.encode())[:-9], {}, "a.csv.gz cannot be read: Truncated"),
        ("a.parquet", CSV, {}, "a.parquet cannot be read: Parquet magic bytes"),
        ("a.json", "[1, 2", {}, "a.json is not JSON: Expecting"),
        ("a.json", "[[1], [2]]", {}, "a.json: row 1 has no object; expected a field 'text'"),
        ("a.jsonl", '{"text": "a"}\n' * 3, {}, "has no field 'label' in any record; the first has"),
        ("a.jsonl", '{"text": "a", "label": ["x", "y"]}\n' * 3, {}, r'line 1 has \["x", "y"\] in \'label\''),
        ("a.txt", "__label__a __label__b text\n" * 3, {}, "a.txt: line 1 has several labels; expected one"),
        ("a.csv", CSV, {"id": "label"}, "a.csv: two texts have the same id"),
    ],
    ids=range(13),
)  # fmt: skip
def test_faults_end_in_one_line(tmp_path, name, content, fields, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, name, content, **fields)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(InputError, match="a.csv is a pipe or a device; expected a file"):
        load_files(str(tmp_path / "a.csv"))


def test_another_encoding_can_be_named(tmp_path):
    pairs, _ = read(tmp_path, "a.csv", CHINESE, encoding="gb18030")
    assert ("这家酒店的环境很好3", "1") in pairs


@given(st.text(max_size=40), st.integers(1, 7))
def test_utf_8_is_known_however_it_is_cut(text, size):
    content = text.encode("utf-8", "surrogatepass").replace(b"\0", b"")
    blocks = [content[i : i + size] for i in range(0, len(content), size)]
    try:
        content.decode()
    except UnicodeDecodeError:
        return
    assert guess_encoding(blocks, "x") in ("utf-8", "utf-8-sig")


def test_delimiters():
    assert guess_delimiter(["a\tb, c, d", "e, f\tg"]) == "\t"
    assert guess_delimiter(["one column"]) == ","
