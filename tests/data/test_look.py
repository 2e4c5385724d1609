"""Warnings name what is likely to be wrong with a data set; figures agree with a count by hand."""

import numpy as np
import pytest

from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.files import load_files
from bahdanau_jax.data.load import load_dataset
from bahdanau_jax.data.look import check_trainable, look, scripts_of, warnings_of
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError


def load(folder, rows, **fields):
    path = folder / "a.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return load_files(str(path), **fields)


PLAIN = [(f"text {i} of it", "ab"[i % 2]) for i in range(60)]


def test_nothing_is_said_of_sound_texts(tmp_path):
    assert warnings_of(load(tmp_path, PLAIN)) == []


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        ([*PLAIN, ("odd", "c")], "classes with a single text, kept in train and never tested: c"),
        ([*PLAIN, ("odd", "c"), ("odder", "c")], "validation lacks 1 of 3 classes: c"),
        ([*PLAIN, ("fine", "A")], "the labels 'A' and 'a' differ only by case or blanks"),
        ([*PLAIN, ("fine", "a  b"), ("good", "a b")], "'a  b' and 'a b' differ only by case"),
        ([*PLAIN, *PLAIN[:40]], "texts of train that repeat an earlier one: "),
        ([("same", "ab"[i % 2]) for i in range(20)], "repeat an earlier one: 19, 10 of"),
        ([(f"這間酒店環境{chr(0x4E00 + i)}", "ab"[i % 2]) for i in range(30)], 'tokenizer.name="characters"'),
        (PLAIN[:2], "validation is empty"),
        (PLAIN[:2], "test is empty"),
    ],
)  # fmt: skip
def test_a_likely_fault_gets_one_line(tmp_path, rows, warning):
    found = [line for line in warnings_of(load(tmp_path, rows)) if warning in line]
    assert len(found) == 1 and found[0].startswith("warning: ") and "\n" not in found[0]


def test_text_without_spaces_is_fine_for_other_tokenizers(tmp_path):
    dataset = load(tmp_path, [(f"這間酒店環境{chr(0x4E00 + i)}", "ab"[i % 2]) for i in range(30)])
    assert warnings_of(dataset, "characters") == []


def test_texts_of_train_in_a_test_file_are_counted(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\ntext 3 of it,b\nnew,a\n")
    dataset = load(tmp_path, PLAIN, test_path=str(tmp_path / "t.csv"), validation_size=1)
    shared = "text 3 of it" in set(dataset.train.texts)
    assert (
        any("texts of test that are also in train: 1;" in x for x in warnings_of(dataset)) == shared
    )


def test_texts_that_do_not_suffice_are_refused_before_training(tmp_path):
    for rows, message in (
        (PLAIN[:2], "the validation part of a is empty: 2 texts of 2 classes do not suffice"),
        (PLAIN[::2], r"a has 1 class \(a\); expected labels of 2 or more"),
    ):
        dataset = load(tmp_path, rows)
        with pytest.raises(InputError, match=message):
            check_trainable(dataset)
        said, fields = [], {"source": "files", "path": str(tmp_path / "a.tsv")}
        with pytest.raises(InputError, match=message):
            load_dataset(fields, seed=0, say=said.append)
        assert said[0].startswith("reading a.tsv as tab-separated, no quoting, UTF-8")


def test_the_test_split_is_not_read_for_warnings():
    def read_test():
        raise AssertionError("read")

    part = Examples(list("abcd"), np.array([0, 1, 0, 1]), list("0123"))
    assert warnings_of(Dataset("x", ("y", "z"), part, part.take([]), read_test, "")) == [
        "warning: validation is empty",
    ]


def test_figures_agree_with_a_count_by_hand():
    train = Examples(
        ["a fine film", "a dull film", "a fine film"], np.array([1, 0, 1]), list("123")
    )
    test = Examples(["", "a fine mess"], np.array([0, 1]), list("12"))
    dataset = Dataset("x", ("neg", "pos"), train, test.take([1]), lambda: test, "")
    looks = look(dataset, Vocabulary.build(train.texts, size=100).encode)
    assert looks["train"].counts.tolist() == [1, 2]
    assert (looks["train"].copies, looks["train"].in_train, looks["test"].in_train) == (1, 0, 0)
    assert looks["test"].lengths.tolist() == [0, 3]
    assert looks["train"].known == 1 and looks["test"].known == pytest.approx(2 / 3)


def test_scripts():
    assert scripts_of([]) == {}
    assert list(scripts_of(["カタカナ ひら", "ไทย a"])) == ["KATAKANA", "THAI", "HIRAGANA", "LATIN"]
