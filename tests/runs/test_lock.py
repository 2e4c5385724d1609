"""Two processes on one run folder: the second is refused, and a dead one is no hindrance."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from bahdanau_jax.runs import lock
from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.lock import locked

ROOT = Path(lock.__file__).parents[1]
HOLD = """
import sys, time
from pathlib import Path
from bahdanau_jax.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        assert output.readline() == b"locked\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_in_one_line_that_names_the_first(tmp_path, holder):
    with pytest.raises(InputError) as error, locked(tmp_path):
        raise AssertionError("two at a time")
    message = str(error.value)
    assert str(tmp_path) in message and f"process {holder.pid} on " in message
    assert "\n" not in message


def test_the_lock_dies_with_its_owner(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_bytes())["pid"] == os.getpid()


def test_it_is_let_go_at_the_end_of_the_block_also_by_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path):
            raise KeyError


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"pid": "x"}', b"\xff", b"[" * 100_000, b"1e999"]
)
def test_whatever_the_file_holds_the_second_is_refused(tmp_path, content):
    with locked(tmp_path):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(InputError, match="in use by another process"), locked(tmp_path):
            pass


def test_a_file_system_without_locks_is_no_hindrance_but_told(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with locked(tmp_path):
            pass
    [warning] = caught
    assert "cannot be locked (Function not implemented)" in str(warning.message)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(InputError, match=r"cannot write \S+\.lock: Is a directory"),
        locked(tmp_path),
    ):
        pass
