"""Pairs to translate: TSV files, dates whose forms and days are kept apart, digits, and batches."""

import datetime
from pathlib import Path

import numpy as np
import pytest

from bahdanau_jax.data import dates
from bahdanau_jax.data.digits import make_digits
from bahdanau_jax.data.pairs import batches, load_pairs, read_pairs
from bahdanau_jax.errors import DataNotFound, InputError
from bahdanau_jax.runs.seq2seq_config import PairsOfTexts
from bahdanau_jax.token_ids import END, PAD

SIZES = dict(train=150, validation=60, test=60)


@pytest.fixture(scope="module")
def made():
    pytest.importorskip("babel")
    return dates.make_dates(SIZES, (1, 2, 3), seed=0)


def test_dates_are_the_same_for_a_seed(made):
    again, other = (dates.make_dates(SIZES, (1, 2, 3), seed=seed) for seed in (0, 1))
    assert again == made and other.train != made.train
    assert [len(x) for x in (made.train, made.validation, made.test)] == [150, 60, 60]


def test_no_day_and_no_form_of_test_is_trained_on(made):
    days = {
        name: {day for target in getattr(made, name).targets for day in target.split()}
        for name in dates.SPLITS
    }
    for name, found in days.items():
        assert all(1900 <= datetime.date.fromisoformat(day).year <= 2099 for day in found)
        assert not any(found & other for key, other in days.items() if key != name)
    forms = dates.split_forms()
    assert not set(forms["train"]) & {*forms["validation"], *forms["test"]}
    # Of each language, the months' names can be learned from training, long and short.
    for language in dates.LANGUAGES:
        patterns = " ".join(pattern for name, pattern in forms["train"] if name == language)
        assert "MMMM" in patterns and "MMM" in patterns.replace("MMMM", "")


def test_lines_hold_as_many_dates_as_asked(made):
    for split, most in (("train", 2), ("test", 3)):
        pairs = getattr(made, split)
        counts = [len(target.split()) for target in pairs.targets]
        assert set(counts) == set(range(1, most + 1))
        assert [len(source.split("; ")) for source in pairs.sources] == counts


@pytest.mark.slow
def test_no_text_stands_for_two_dates():
    format_date = pytest.importorskip("babel.dates").format_date
    days = [datetime.date(2001, month, day) for month in range(1, 13) for day in range(1, 29)]
    found = {}
    for language, pattern in (form for forms in dates.split_forms().values() for form in forms):
        for day in days:
            text = format_date(day, pattern, language)
            assert found.setdefault(text, day) == day, (text, language, pattern)


@pytest.mark.parametrize("task", ["reverse", "sort"])
def test_digits(task):
    data = make_digits(task, SIZES, (3, 6, 8), seed=0)
    for pairs, most in ((data.train, 6), (data.test, 8)):
        assert {len(x) for x in pairs.sources} == set(range(3, most + 1))
        for source, target in zip(pairs.sources, pairs.targets, strict=True):
            assert target == (source[::-1] if task == "reverse" else "".join(sorted(source)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\nc\n", "line 2 has 1 fields; expected 2: source and target"),
        (b"a\tb\tc\n", "line 1 has 3 fields; expected 2"),
        (b"a\tb\n\n\t c\n", "line 3 has an empty source; expected a text"),
        (b"a\t \n", "line 1 has an empty target"),
        (b"a\t\xff\n", "line 1 is not UTF-8 (byte 0xff); expected a file in UTF-8"),
        (b"\n", "is empty; expected lines of source, tab and target"),
    ],
)
def test_a_bad_row_is_named(content, message, tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_pairs(file)
    assert str(error.value).startswith(str(file)) and message in str(error.value)


def tsv(tmp_path: Path, **fields):
    file = tmp_path / "pairs.tsv"
    rows = [f"s{i % 20}\tt{i}" for i in range(60)]  # three targets of each source
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    return load_pairs(PairsOfTexts(source="tsv", path=str(file), **fields).model_dump(), seed=0)


def test_a_tsv_file_keeps_the_targets_of_a_source_together(tmp_path):
    data = tsv(tmp_path)
    splits = data.train, data.validation, data.test
    assert sorted(t for x in splits for t in x.targets) == sorted(f"t{i}" for i in range(60))
    assert [len(x) for x in splits] == [
        48,
        6,
        6,
    ] and "cut out of pairs.tsv" in data.test_description
    sources = [set(x.sources) for x in splits]
    assert sum(map(len, sources)) == 20 == len(set.union(*sources))


def test_files_of_ones_own_for_test(tmp_path):
    test = tmp_path / "test.tsv"
    test.write_text("a\tb\n")
    data = tsv(tmp_path, test_path=str(test))
    assert data.test.targets == ["b"] and len(data.train) == 54
    with pytest.raises(DataNotFound, match="none.tsv does not exist"):
        tsv(tmp_path, validation_path="none.tsv")


def test_batches_hold_every_pair_of_an_epoch_once():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 101)
    sources = [np.full(n, 4 + i) for i, n in enumerate(lengths)]
    found, epoch = [], batches(sources, sources, 10, seed=0)
    for _ in range(10):
        source, target = next(epoch)
        assert source.shape[0] == 10 and source.shape[1] % 16 == target.shape[1] % 4 == 0
        for row, written in zip(source, target, strict=True):
            n = lengths[row[0] - 4]
            assert (row[:n] == row[0]).all() and (row[n:] == PAD).all()
            assert (
                (written[:n] == row[0]).all()
                and written[n] == END
                and (written[n + 1 :] == PAD).all()
            )
            found.append(row[0])
    assert len(set(found)) == 100
