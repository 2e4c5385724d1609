"""JSON files are written whole or not at all; damaged or hostile ones are refused in one line."""

import json

import pytest

from bahdanau_jax import atomic_write
from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.safe_files import read_json, write_json


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_json(file, {"accuracy": 0.5})
    assert read_json(file) == {"accuracy": 0.5}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_write.os, "fsync", full)
    with pytest.raises(InputError, match="result.json cannot be written: No space left on device"):
        write_json(file, {"accuracy": 0.9})
    assert json.loads(file.read_text()) == {"accuracy": 0.5}
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(InputError, match="result.json cannot be read: No such file"):
        read_json(tmp_path / "result.json")


def test_what_is_not_finite_is_null_since_json_has_no_nan(tmp_path):
    splits = {"test": {"loss": float("nan"), "n": 10}, "all": [1.5, float("-inf")]}
    write_json(tmp_path / "result.json", splits)
    text = (tmp_path / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "test": {"loss": None, "n": 10},
        "all": [1.5, None],
    }


@pytest.mark.parametrize(
    "text, expected",
    [
        ('{"n": ' + "9" * 30 + "}", "at most 64 bits"),
        ('{"n": ' + "9" * 5000 + "}", "at most 64 bits"),
        ('{"n": 1e999}', "expected a finite one"),
        ('{"n": NaN}', "expected a finite one"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_numbers_and_depths_that_no_run_writes_are_refused(tmp_path, text, expected):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=expected) as error:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_file_that_is_far_too_large_is_not_read(tmp_path):
    with open(tmp_path / "x.json", "wb") as file:
        file.truncate(10**12)  # a hole: takes no space
    with pytest.raises(InputError, match="1,000,000,000,000 bytes; expected at most"):
        read_json(tmp_path / "x.json")
