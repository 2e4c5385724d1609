"""Files of your own give the same texts and labels in every format; messages name the line of a fault."""

import csv
import json

import pytest
from small_imdb import check_dataset

from bahdanau_jax import DataNotFound, InputError
from bahdanau_jax.data.files import load_files

LABELS = ("fine & good", "dull", "mixed")
ROWS = [
    (f'Text {i}, "quoted"\nand Été\r\nof {LABELS[i % 3]}' if i % 7 == 0 else f"text {i}", LABELS[i % 3])
    for i in range(60)
]  # fmt: skip


def write(path, rows=ROWS, columns=("id", "label", "text")):
    if path.suffix == ".jsonl":
        lines = [json.dumps({columns[2]: text, columns[1]: label}) for text, label in rows]
        path.write_text("\n\n".join(lines), encoding="utf-8")
    else:
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(columns)
            for i, (text, label) in enumerate(rows):
                writer.writerow([i, label, text])
                file.write("\r\n" * (i % 5 == 0))  # readers skip blank lines
    return path


def write_folder(path, rows=ROWS):
    for i, (text, label) in enumerate(rows):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{i}.txt").write_bytes(text.encode())
    (path / ".hidden").mkdir()
    (path / "README").write_text("no text")
    return path


def all_of(dataset):
    """(text, label) of every example."""
    splits = (dataset.train, dataset.validation, dataset.read_test())
    return [
        (text, dataset.label_names[label])
        for split in splits
        for text, label in zip(split.texts, split.labels, strict=True)
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.jsonl", "folder"])
def test_every_format_gives_the_same_texts(tmp_path, name):
    path = tmp_path / name.lower()
    write(path) if "." in name else write_folder(path)
    dataset = load_files(str(path))
    test = check_dataset(dataset)
    assert dataset.label_names == tuple(sorted(LABELS))
    assert sorted(all_of(dataset)) == sorted(ROWS)
    assert (len(dataset.train), len(dataset.validation), len(test)) == (48, 6, 6)
    # The texts held out do not depend on the order.
    write(tmp_path / "other.csv", ROWS[::-1])
    other = load_files(str(tmp_path / "other.csv"))
    assert sorted(other.validation.texts) == sorted(dataset.validation.texts)
    assert sorted(other.read_test().texts) == sorted(test.texts)


def test_ids_give_line_or_file(tmp_path):
    path = write(tmp_path / "a.csv")
    lines = path.read_bytes().split(b"\n")
    train = load_files(str(path)).train
    for name, text in zip(train.ids, train.texts, strict=True):
        line = int(name.removeprefix("a.csv:"))
        assert text.split("\n")[0].replace('"', '""').encode() in lines[line - 1]
    folder = write_folder(tmp_path / "folder")
    train = load_files(str(folder)).train
    for name, text in zip(train.ids, train.texts, strict=True):
        assert (tmp_path / name).read_bytes().decode() == text


def test_a_test_file_and_integer_labels(tmp_path):
    rows = [(f"text {i}", i % 11 - 1) for i in range(33)]
    path = write(tmp_path / "train.jsonl", rows, ("id", "stars", "body"))
    (tmp_path / "t").mkdir()
    other = write(tmp_path / "t" / "train.csv", rows[:5], ("id", "stars", "body"))
    dataset = load_files(
        str(path), test_path=str(other), validation_size=4, text="body", label="stars"
    )
    test = check_dataset(dataset)
    assert dataset.label_names == tuple(map(str, range(-1, 10)))
    assert (len(dataset.train), len(dataset.validation), len(test)) == (29, 4, 5)
    assert test.labels.tolist() == [0, 1, 2, 3, 4]
    assert not set(test.ids) & set(dataset.train.ids)


def test_copies_of_one_text_stay_together(tmp_path):
    rows = [(f"text {i % 20}", "ab"[i % 2]) for i in range(60)]
    dataset = load_files(str(write(tmp_path / "a.csv", rows)), validation_size=7, test_size=8)
    splits = [set(x.texts) for x in (dataset.train, dataset.validation, dataset.read_test())]
    assert not splits[0] & splits[1] and not splits[0] & splits[2] and not splits[1] & splits[2]
    assert [len(x) for x in splits] == [16, 2, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,body,label\n1,a,b\n", "a.csv has no column 'text'; its columns are id, body, label"),
        ("text,label\nfine,x\n  ,y\n", "a.csv: line 3 has an empty text"),
        ("text,label\nfine,x\nfine,\n", "a.csv: line 3 has an empty label"),
        ('text,label\nfine,x\n\n"not closed,y\nmore,x\n', "a.csv: the record of line 4 is not a"),
        ("text,label\nfine,x\ntwo\n", "a.csv: line 3 has 1 fields; expected 2"),
        (b"text,label\nfine,x\n\xe9t\xe9,y\n", r"a.csv: line 3 is not UTF-8 \(byte 0xe9\)"),
        ("text,label\nfine,x\ndull,x\n", r"'label' has 1 values \(x\); expected 2 to 1,000"),
        ("text,label\n", "a.csv holds no texts"),
        ("", "a.csv is empty; expected a header"),
        ("text,label\na,x\nb,y\n", "validation_size is 1; expected 1 to 0 of 1"),
    ],
)  # fmt: skip
def test_a_message_names_the_line_of_a_fault(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        load_files(str(path))
    assert "\n" not in str(error.value)


def test_other_faults_are_refused(tmp_path):
    train = write(tmp_path / "a.csv")
    test = write(tmp_path / "b.csv", [*ROWS[:5], ("odd", "unheard of")])
    with pytest.raises(
        InputError,
        match=r"b.csv: line \d+ has the label 'unheard of', which the training texts do not have; "
        "expected one of dull, fine & good, mixed",
    ):
        load_files(str(train), test_path=str(test))
    with pytest.raises(InputError, match="config.data.path is empty; expected a file or a folder"):
        load_files("")
    for name in ("a.jsonl", "no.csv", "none"):
        with pytest.raises((DataNotFound, InputError), match="No such file|ends with"):
            load_files(str(tmp_path / name))
    (tmp_path / "c.jsonl").write_text('{"text": "a", "label": 1.5}')
    with pytest.raises(InputError, match="line 1 has 1.5 in 'label'; expected a text or an int"):
        load_files(str(tmp_path / "c.jsonl"))
    (tmp_path / "c.jsonl").write_text('\n{"text": 3, "label": 1}')
    with pytest.raises(InputError, match="line 2 has 3 in 'text'; expected a text"):
        load_files(str(tmp_path / "c.jsonl"))
    with pytest.raises(InputError, match="a.txt has no labels; expected .csv, .tsv"):
        (tmp_path / "a.txt").write_text("text")
        load_files(str(tmp_path / "a.txt"))
    folder = write_folder(tmp_path / "folder")
    (folder / "dull" / "a.txt").write_bytes(b"one\ntwo \xff")
    with pytest.raises(InputError, match="dull/a.txt: line 2 is not UTF-8"):
        load_files(str(folder))
    (folder / "dull" / "a.txt").write_bytes(b" \n")
    with pytest.raises(InputError, match="dull/a.txt: line 1 has an empty text"):
        load_files(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no folders; expected one for each class"):
        load_files(str(tmp_path / "empty"))


def test_a_file_that_changes_after_loading_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl")
    dataset = load_files(str(path))
    path.write_text("short")
    with pytest.raises(InputError, match="a.jsonl: line 1 has changed since it was first read"):
        list(dataset.train.take([0]).texts)
