import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from bahdanau_jax.runs import folder as workdir_module
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Predictor
from bahdanau_jax.runs.config import flatten, validate_config
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.safe_files import read_json, write_json
from experiments import imdb, imdb_tiny


def opened(workdir, config) -> Path:
    with open_workdir(workdir, config) as folder:
        return folder


def listing(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_new_folder_gets_the_config_and_the_same_run_opens_it_again(tmp_path):
    folder = tmp_path / "runs" / "a"
    assert opened(folder, imdb.get_config()) == folder
    before = listing(folder)
    assert list(before) == ["config.json"]
    assert read_json(folder / "config.json") == json.loads(json.dumps(imdb.get_config().to_dict()))
    opened(str(folder), imdb.get_config())
    assert listing(folder) == before


def test_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert opened("~/run", imdb.get_config()) == tmp_path / "run"


def test_a_run_of_another_config_is_refused_and_kept(tmp_path):
    config = imdb.get_config()
    opened(tmp_path, config)
    (tmp_path / "metrics.jsonl").touch()
    before = listing(tmp_path)
    config.batch_size = 128
    config.model.dropout = 0.25
    config.data.data_dir = "/data"
    with pytest.raises(InputError) as error:
        opened(tmp_path, config)
    message = one_line(error)
    assert str(tmp_path) in message
    assert "batch_size: 256 in the folder, 128 asked for" in message
    assert "model.dropout: 0.5 in the folder, 0.25 asked for" in message
    assert 'data.data_dir: null in the folder, "/data" asked for' in message
    assert "epochs" not in message
    assert listing(tmp_path) == before


def test_the_config_of_a_run_that_never_began_makes_way(tmp_path):
    config = imdb.get_config()
    config.data.data_dir = "/mistyped"
    opened(tmp_path, config)
    (tmp_path / "vocabulary.json").touch()
    config.data.data_dir = "/data"
    opened(tmp_path, config)
    assert read_json(tmp_path / "config.json")["data"]["data_dir"] == "/data"


def test_a_field_that_only_one_side_has_is_a_difference(tmp_path):
    config = imdb.get_config()
    config.optimizer.nesterov = True
    opened(tmp_path, config)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(InputError, match="optimizer.nesterov: true in the folder, nothing asked"):
        opened(tmp_path, imdb.get_config())


def test_a_folder_with_something_else_in_it_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = listing(tmp_path)
    with pytest.raises(InputError) as error:
        opened(tmp_path, imdb.get_config())
    assert "thesis.tex" in one_line(error)
    assert listing(tmp_path) == before


def test_hidden_files_do_not_count(tmp_path):
    (tmp_path / ".config.json.17.new").write_text('{"half": ')  # left by a kill while writing
    opened(tmp_path, imdb.get_config())
    opened(tmp_path, imdb.get_config())


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    for folder in (file, file / "below"):
        with pytest.raises(InputError) as error:
            opened(folder, imdb.get_config())
        assert str(file) in one_line(error)
    assert file.read_text() == "text"


def test_a_folder_that_cannot_be_written_to(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        folder = Path("/proc/run")  # root may write anywhere but there
    with pytest.raises(InputError) as error:
        opened(folder, imdb.get_config())
    assert str(folder) in one_line(error)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"1" * 5_000, b"[" * 100_000, b'{"seed": 0'],
)
def test_a_damaged_config_is_refused_in_one_line_and_kept(tmp_path, damage):
    file = tmp_path / "config.json"
    file.write_bytes(damage)
    with pytest.raises(InputError) as error:
        opened(tmp_path, imdb.get_config())
    assert str(file) in one_line(error)
    assert file.read_bytes() == damage


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_json(file, {"accuracy": 0.5})
    assert read_json(file) == {"accuracy": 0.5}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workdir_module.os, "fsync", full)
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


def test_a_folder_in_use_is_refused_and_its_config_stays(tmp_path):
    with open_workdir(tmp_path, imdb.get_config()):
        before = listing(tmp_path)
        with pytest.raises(InputError, match="is in use by process"):
            opened(tmp_path, imdb_tiny.get_config())  # of a run that has not begun to train
        with open_workdir(tmp_path, imdb.get_config(), lock=False):
            pass  # another process of the same run
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda run, out: (run / "metrics.jsonl").symlink_to(out), "metrics.jsonl is a link to"),
        (lambda run, out: (run / "checkpoints").symlink_to(out.parent), "checkpoints is a link to"),
        (lambda run, out: (run / ".lock").symlink_to(out), ".lock is a link to"),
        (lambda run, out: (run / "a").symlink_to("../" * 30 + "etc/passwd"), "a is a link to"),
        (lambda run, out: os.mkfifo(run / "result.json"), "result.json is neither a file nor"),
        (lambda run, out: (run / "loop").symlink_to("loop"), "run folder"),
    ],
)
def test_a_folder_that_leads_out_of_itself_is_refused_and_nothing_is_written(
    tmp_path, make, expected
):
    run, outside = tmp_path / "run", tmp_path / "outside.txt"
    opened(run, imdb.get_config())
    (run / ".lock").unlink()
    outside.write_text("precious")
    make(run, outside)
    with pytest.raises(InputError, match=expected) as error:
        opened(run, imdb.get_config())
    one_line(error)
    assert outside.read_text() == "precious"
    with pytest.raises(InputError, match=expected):
        Predictor.load(run)


def test_links_inside_of_the_folder_and_to_it_are_fine(tmp_path):
    opened(tmp_path / "run", imdb.get_config())
    (tmp_path / "run" / "newest").symlink_to("config.json")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    opened(tmp_path / "link", imdb.get_config())


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
    assert len(one_line(error)) < 400


def test_a_file_that_is_far_too_large_is_not_read(tmp_path):
    with open(tmp_path / "x.json", "wb") as file:
        file.truncate(10**12)  # a hole: takes no space
    with pytest.raises(InputError, match="1,000,000,000,000 bytes; expected at most"):
        read_json(tmp_path / "x.json")


