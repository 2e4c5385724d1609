"""A run's folder is made, compared with the config asked for, and locked against a second run."""

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Predictor
from bahdanau_jax.runs import folder as run_folder
from bahdanau_jax.runs.config import Config
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.safe_files import read_json, write_json

SETTINGS = Config().model_dump()
HOLD = """
import sys, time
from bahdanau_jax.runs.folder import open_workdir
with open_workdir(sys.argv[1], {"seed": 0}):
    print("locked", flush=True)
    time.sleep(600)
"""


def opened(workdir, **changed) -> Path:
    """Opens a folder with the default config, in which top-level fields are changed, and leaves it."""
    with open_workdir(workdir, SETTINGS | changed) as folder:
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
    assert opened(folder) == folder
    before = listing(folder)
    assert list(before) == ["config.json"]
    assert read_json(folder / "config.json") == json.loads(json.dumps(SETTINGS))
    opened(str(folder))
    assert listing(folder) == before


def test_the_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert opened("~/run") == tmp_path / "run"


def test_a_run_of_another_config_is_refused_and_kept(tmp_path):
    opened(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    before = listing(tmp_path)
    model = SETTINGS["model"] | {"dropout": 0.25}
    data = SETTINGS["data"] | {"data_dir": "/data"}
    with pytest.raises(InputError) as error:
        opened(tmp_path, batch_size=128, model=model, data=data)
    message = one_line(error)
    assert str(tmp_path) in message
    assert "batch_size: 256 in the folder, 128 asked for" in message
    assert "model.dropout: 0.5 in the folder, 0.25 asked for" in message
    assert 'data.data_dir: null in the folder, "/data" asked for' in message
    assert "epochs" not in message
    assert listing(tmp_path) == before


def test_the_config_of_a_run_that_never_began_makes_way(tmp_path):
    opened(tmp_path, epochs=7)
    (tmp_path / "vocabulary.json").touch()
    opened(tmp_path, epochs=8)
    assert read_json(tmp_path / "config.json")["epochs"] == 8


def test_a_field_that_only_one_side_has_is_a_difference(tmp_path):
    opened(tmp_path, optimizer=SETTINGS["optimizer"] | {"nesterov": True})
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(InputError, match="optimizer.nesterov: true in the folder, nothing asked"):
        opened(tmp_path)


def old_run(folder, change):
    """A folder that has begun, whose config.json is changed by `change`."""
    opened(folder)
    (folder / "metrics.jsonl").touch()
    fields = read_json(folder / "config.json")
    change(fields)
    write_json(folder / "config.json", fields)


def test_a_field_that_this_version_added_has_its_default_in_older_folders(tmp_path):
    def older(fields):
        del fields["max_skipped_steps"], fields["model"]["ngrams"], fields["data"]["options"]

    old_run(tmp_path, older)
    opened(tmp_path)
    ngrams = SETTINGS["model"] | {"ngrams": 2}
    with pytest.raises(InputError, match="differ: model.ngrams: 0 in the folder, 2 asked for$"):
        opened(tmp_path, model=ngrams)


def test_a_field_that_this_version_removed_is_a_difference_only_where_it_did_something(tmp_path):
    old_run(tmp_path, lambda fields: fields["model"].update(members=1))
    opened(tmp_path)
    old_run(tmp_path, lambda fields: fields["model"].update(members=4))
    with pytest.raises(InputError, match="model.members: 4 in the folder, nothing asked for$"):
        opened(tmp_path)


def test_a_whole_number_equals_the_same_number_with_a_point(tmp_path):
    old_run(tmp_path, lambda fields: fields["optimizer"].update(clip_norm=1))
    opened(tmp_path)


def test_settings_that_lack_most_fields_of_a_config_are_compared_alone(tmp_path):
    baseline = {"method": "nb-svm", "ngrams": 2, "data": SETTINGS["data"]}
    for _ in range(2):
        with open_workdir(tmp_path, baseline):
            (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(InputError, match="differ: ngrams: 2 in the folder, 3 asked for$"):
        with open_workdir(tmp_path, baseline | {"ngrams": 3}):
            pass


def test_a_folder_with_something_else_in_it_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = listing(tmp_path)
    with pytest.raises(InputError) as error:
        opened(tmp_path)
    assert "thesis.tex" in one_line(error)
    assert listing(tmp_path) == before


def test_hidden_files_do_not_count(tmp_path):
    (tmp_path / ".config.json.17.new").write_text('{"half": ')  # left by a kill while writing
    opened(tmp_path)
    opened(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    for folder in (file, file / "below"):
        with pytest.raises(InputError) as error:
            opened(folder)
        assert str(file) in one_line(error)
    assert file.read_text() == "text"


def test_a_folder_that_cannot_be_written_to(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        folder = Path("/proc/run")  # root may write anywhere but there
    with pytest.raises(InputError) as error:
        opened(folder)
    assert str(folder) in one_line(error)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"1" * 5_000, b"[" * 100_000, b'{"seed": 0'],
)
def test_a_damaged_config_is_refused_in_one_line_and_kept(tmp_path, damage):
    file = tmp_path / "config.json"
    file.write_bytes(damage)
    with pytest.raises(InputError) as error:
        opened(tmp_path)
    assert str(file) in one_line(error)
    assert file.read_bytes() == damage


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda run, out: (run / "metrics.jsonl").symlink_to(out), "metrics.jsonl is a link to"),
        (lambda run, out: (run / "checkpoints").symlink_to(out.parent), "checkpoints is a link to"),
        (lambda run, out: (run / ".lock").symlink_to(out), ".lock is a link to"),
        (lambda run, out: (run / "a").symlink_to("../" * 30 + "etc/passwd"), "a is a link to"),
        (lambda run, out: os.mkfifo(run / "result.json"), "result.json is neither a file nor"),
        (lambda run, out: (run / "loop").symlink_to("loop"), "loop is a link to 'loop'"),
    ],
)
def test_a_folder_that_leads_out_of_itself_is_refused_and_nothing_is_written(
    tmp_path, make, expected
):
    run, outside = tmp_path / "run", tmp_path / "outside.txt"
    opened(run)
    (run / ".lock").unlink()
    outside.write_text("precious")
    make(run, outside)
    with pytest.raises(InputError, match=expected) as error:
        opened(run)
    one_line(error)
    assert outside.read_text() == "precious"
    with pytest.raises(InputError, match=expected):
        Predictor.load(run)


def test_links_inside_the_folder_and_to_it_are_fine(tmp_path):
    opened(tmp_path / "run")
    (tmp_path / "run" / "newest").symlink_to("config.json")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    opened(tmp_path / "link")


# --- lock ---------------------------------------------------------------------------------------


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout as output:
        assert output.readline() == b"locked\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_in_one_line_that_names_the_first(tmp_path, holder):
    for _ in range(2):  # the first refusal leaves the name there for the second
        with pytest.raises(InputError) as error:
            opened(tmp_path)
        message = one_line(error)
        assert str(tmp_path) in message and f"in use by process {holder.pid} on " in message


def test_a_kill_leaves_no_lock(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with open_workdir(tmp_path, SETTINGS):
        assert json.loads((tmp_path / ".lock").read_bytes())["pid"] == os.getpid()


def test_a_refused_run_leaves_the_config_as_it_is(tmp_path):
    with open_workdir(tmp_path, SETTINGS):
        before = listing(tmp_path)
        with pytest.raises(InputError, match="is in use by process"):
            opened(tmp_path, epochs=7)  # which could replace it, since no run has begun
        with open_workdir(tmp_path, SETTINGS, lock=False):
            pass  # another process of the same run
    assert listing(tmp_path) == before


def test_an_error_inside_the_block_unlocks_the_folder(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), open_workdir(tmp_path, SETTINGS):
            raise KeyError


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"pid": "x"}', b"\xff", b"[" * 100_000, b"1e999"]
)
def test_a_second_run_is_refused_whatever_the_lock_file_holds(tmp_path, content):
    with open_workdir(tmp_path, SETTINGS):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(InputError, match="in use by another process"):
            opened(tmp_path)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EACCES])
def test_both_codes_of_a_held_lock_refuse(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(run_folder.fcntl, "flock", flock)
    with pytest.raises(InputError, match="in use by another process"):
        opened(tmp_path)


def test_a_file_system_without_locks_warns_and_goes_on(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_folder.fcntl, "flock", flock)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened(tmp_path)
    [warning] = caught
    assert "cannot be locked (Function not implemented)" in str(warning.message)
    assert warning.filename == __file__


def test_a_lock_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(InputError, match=r"cannot write \S+\.lock: Is a directory"):
        opened(tmp_path)
