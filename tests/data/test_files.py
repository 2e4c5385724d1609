"""Files of your own give the same texts and labels in every format; messages name the line of a fault."""

import csv
import json

import numpy as np
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
        ('text,label\nfine,x\n\n"not, closed,y\nmore,x\n', "the record of line 4 is not a"),
        ("text,label\nfine,x\ntwo\n", "a.csv: line 3 has 1 fields; expected 2"),
        ("text,label\n" + "".join(f"a,{i}\n" for i in range(1_001)), "'label' has 1,001 values"),
        ("text,label\n", "a.csv holds no texts"),
        ("text,label\na,\n", "a.csv holds no texts with labels"),
        ("", "a.csv is empty; expected a header"),
        (b"text,label\n" + b"\xb5\xc4\xd6\xd0\xce\xc4,1\n" * 9, "are not UTF-8; expected config.data.enc"),
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
        with pytest.raises(DataNotFound, match="No such file"):
            load_files(str(tmp_path / name))
    (tmp_path / "c.jsonl").write_text('{"text": "a", "label": 1.5}')
    with pytest.raises(InputError, match="line 1 has 1.5 in 'label'; expected a text, an int"):
        load_files(str(tmp_path / "c.jsonl"))
    (tmp_path / "c.jsonl").write_text('\n{"text": 3, "label": 1}')
    with pytest.raises(InputError, match="line 2 has 3 in 'text'; expected a text"):
        load_files(str(tmp_path / "c.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no folders; expected one for each class"):
        load_files(str(tmp_path / "empty"))


def test_texts_stay_what_they_were_when_the_file_changes(tmp_path):
    path = write(tmp_path / "a.jsonl")
    dataset = load_files(str(path))
    path.write_text("short")
    assert sorted(all_of(dataset)) == sorted(ROWS)


def test_many_texts_are_read_in_any_order(tmp_path):
    rows = [(f"text {i}" * (i % 7 + 1), "ab"[i % 2]) for i in range(3 * 512 + 5)]
    train = load_files(str(write(tmp_path / "a.csv", rows))).train
    order = np.random.default_rng(0).permutation(len(train))
    shuffled = train.take(order)
    assert list(shuffled.texts) == [train.texts[i] for i in order]
    assert list(train.texts) == [
        rows[(int(name[6:]) - 2)][0] for name in _plain_ids(rows, tmp_path)
    ]


def _plain_ids(rows, folder):
    """The ids of the training texts of a file without blank lines."""
    path = folder / "b.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return load_files(str(path)).train.ids


def test_what_systems_leave_in_folders_is_no_text(tmp_path):
    for name in ("pos", "neg"):
        (tmp_path / "texts" / name / "inside").mkdir(parents=True)
        for i in range(5):
            (tmp_path / "texts" / name / f"{i}.txt").write_text(f"{name} film {i}")
        for junk in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (tmp_path / "texts" / name / junk).write_bytes(b"\xd0\xcf\x11\xe0\0\0\0")
    (tmp_path / "texts/__MACOSX").mkdir()
    dataset = load_files(str(tmp_path / "texts"))
    assert dataset.label_names == ("neg", "pos")
    assert len(dataset.train) + len(dataset.validation) + len(dataset.read_test()) == 10
    assert "texts: folders inside a class, left out: 2 (the first: neg/inside)" in dataset.notes


@pytest.mark.parametrize("group", ["", "film"])
def test_folds_have_no_text_in_common_and_keep_groups_together(tmp_path, group):
    rows = [("text", "label", "film")]
    rows += [(f"text {i}", "abb"[i % 3], f"film {i // 4}") for i in range(52)]
    rows += [("text 5", "b", "film 1"), ("the only one", "c", "film 99")]
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)

    def load(fold):
        fields = dict(validation_size=12, validation_fold=fold, test_size=5, group=group)
        return load_files(str(tmp_path / "a.csv"), **fields)

    folds = [load(fold) for fold in range(4)]
    test = list(folds[0].read_test().texts)
    held_out = [text for one in folds for text in one.validation.texts]
    assert max(map(held_out.count, {*held_out} - {"text 5"})) == 1
    # Classes are held out by their share, and each keeps a training text, so a few texts are left over.
    left = {row[0] for row in rows[1:]} - {*held_out, *test}
    assert "the only one" in left and len(left) <= 3
    film_of = {text: film for text, _, film in rows[1:]}
    for one in folds:
        assert list(one.read_test().texts) == test
        assert set(one.train.labels.tolist()) == {0, 1, 2}
        sides = [one.train.texts, one.validation.texts, test]
        assert sum(map(len, sides)) == 54 and len(one.validation) > 5
        assert not set(sides[0]) & set(sides[1])
        if group:
            films = [{film_of[text] for text in side} for side in sides]
            assert not films[0] & films[1] and not films[0] & films[2]
