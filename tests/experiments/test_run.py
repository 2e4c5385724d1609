import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import bahdanau_jax.training.train
from bahdanau_jax.errors import DataNotFound, InputError
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.runs.preemption import Stopped
from experiments import run

ROOT = Path(run.__file__).parent.parent


@pytest.fixture
def started(monkeypatch):
    """Stands for training; holds the configs and folders it was started with."""
    calls = []
    monkeypatch.setattr(
        bahdanau_jax.training.train,
        "train_and_evaluate",
        lambda *arguments: calls.append(arguments),
    )
    return calls


def refused(capsys, *arguments: str) -> str:
    """Runs the command line, which must end with 2 and one line on stderr; returns that line."""
    code = run.main(["run", *arguments])
    output = capsys.readouterr()
    assert code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1 and output.err.startswith("error: ")
    return output.err


def test_overrides_reach_the_run(started, tmp_path):
    arguments = [
        "--config.epochs=1",  # an override may stand before the file
        "--config=experiments/imdb_tiny.py",
        f"--workdir={tmp_path}",
        "--config.model.dropout=0",
        "--config.bucket_lengths=(16, 64)",
        "--noconfig.model.mask_attention",
        "--config.data.data_dir=/data",
        "--config.optimizer.name",
        "sgd",
    ]
    assert run.main(["run", *arguments]) == 0
    [(config, workdir)] = started
    assert workdir == tmp_path
    assert (config.epochs, config.model.dropout, config.bucket_lengths) == (1, 0.0, (16, 64))
    assert (config.model.mask_attention, config.data.data_dir) == (False, "/data")
    assert (config.optimizer.name, config.data.source) == ("sgd", "made_up")


def test_without_arguments_it_is_imdb_in_its_own_folder(started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run.main(["run"]) == 0
    [(config, workdir)] = started
    assert config.data.source == "tfds"
    assert workdir == ROOT / "runs" / "imdb"


def test_a_relative_config_is_taken_from_here_then_from_the_repository(
    started, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run.main(["run", "--config", "experiments/imdb_tiny.py"]) == 0
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "imdb_tiny.py").write_text(
        "from experiments import imdb\n\n\ndef get_config():\n    return imdb.get_config()\n"
    )
    assert run.main(["run", "--config", "experiments/imdb_tiny.py"]) == 0
    assert [config.data.source for config, _ in started] == ["made_up", "tfds"]
    assert {workdir for _, workdir in started} == {ROOT / "runs" / "imdb_tiny"}


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--config.batchsize=1"], ["'batchsize'", "batch_size"]),
        (["--config.dropout=0.1"], ["'dropout'", "model.dropout, model.head_dropout"]),
        (["--config.model.droput=0.1"], ["model.dropout"]),
        (["--config.model.mask_attention.x=1"], ["model.mask_attention"]),
        (["--config.zzz=1"], ["'zzz'", "there are", "batch_size", "model.num_layers"]),
        (["--config.model=3"], ["group", "model.dropout"]),
        (["--noconfig.model.mask_atention"], ["model.mask_attention"]),
        (["--config=experiments/imbd.py"], ["experiments/imbd.py", "experiments/imdb.py"]),
        (["--config=imdb_tiny"], ["experiments/imdb_tiny.py"]),
        (["--config=experiments/run.py"], ["run.py", "get_config()"]),
        (["--config=experiments"], ["folder"]),
        (["--config=pyproject.toml"], [".py"]),
        (["--config="], ["empty"]),
        (["--config"], ["no value"]),
        (["--config=a.py", "--config=b.py"], ["twice", "a.py", "b.py"]),
        (["--config.epochs=abc"], ["--config.epochs=abc", "expected int, such as 3"]),
        (["--config.epochs=1.5"], ["--config.epochs=1.5", "expected int, such as 3"]),
        (["--config.epochs=" + "9" * 5_000], ["--config.epochs", "expected int"]),
        (["--config.epochs"], ["--config.epochs"]),
        (["--config.model.mask_attention=7"], ["--config.model.mask_attention=7", "bool"]),
        (["--config.optimizer.learning_rate=fast"], ["learning_rate=fast", "expected float"]),
        (["--config.bucket_lengths=(1, "], ["bucket_lengths"]),
        (["--worddir=/x"], ["--worddir", "--workdir"]),
        (["--batch_size=3"], ["--batch_size", "--config.batch_size"]),
        (["--workdir="], ["--workdir"]),
        (["--workdir"], ["--workdir"]),
        (["--flagfile=/nowhere/flags"], ["/nowhere/flags"]),
        (["tset"], ["'tset'"]),
        (["--", "--config.epochs=1", "x"], ["unexpected argument"]),
        (["--config.epochs=-1"], ["config.epochs is -1", "at least 1"]),
        (["--config.bucket_lengths=abc"], ["config.bucket_lengths is ('abc',)", "max_length"]),
        (["--config.optimizer.name=adan"], ["config.optimizer.name is 'adan'", "adam"]),
        (["--config.data.source=imdb"], ["config.data.source is 'imdb'", "'tfds'"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_a_wrong_command_line_is_refused_in_one_line(
    arguments, expected, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    if "--workdir" not in " ".join(arguments):
        arguments = [f"--workdir={tmp_path / 'run'}", *arguments]
    line = refused(capsys, *arguments)
    for text in expected:
        assert text in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "source, expected",
    [
        ("def get_config(:\n", "SyntaxError"),
        ("import nowhere\n", "nowhere"),
        ("raise SystemExit(0)\n", "SystemExit"),
        ("x = 1\n", "no function get_config()"),
        ("get_config = 1\n", "no function get_config()"),
        ("def get_config():\n    raise RuntimeError('two\\nlines')\n", "two lines"),
        ("def get_config(x):\n    return x\n", "get_config()"),
        ("def get_config():\n    return {'epochs': 3}\n", "returned dict"),
        ("def get_config():\n    pass\n", "returned NoneType"),
        ("x = '\xff'\n", "config.py"),
        (
            "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'sede': 1})\n",
            "config.sede is not a field; did you mean config.seed?",
        ),
    ],
)
def test_a_config_file_that_is_no_config(source, expected, capsys, tmp_path):
    file = tmp_path / "config.py"
    file.write_bytes(source.encode("latin-1"))
    line = refused(capsys, f"--config={file}", f"--workdir={tmp_path / 'run'}")
    assert expected in line
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_config_is_refused_and_kept(capsys, tmp_path):
    tiny = ["--config=experiments/imdb_tiny.py", f"--workdir={tmp_path}"]
    config, workdir = run.parse(["run", *tiny])
    with open_workdir(workdir, parse_config(config).model_dump()):
        pass
    (tmp_path / "metrics.jsonl").touch()
    before = (tmp_path / "config.json").read_bytes()
    line = refused(capsys, *tiny, "--config.batch_size=49")
    assert "batch_size: 50 in the folder, 49 asked for" in line
    assert {file.name for file in tmp_path.iterdir()} == {".lock", "config.json", "metrics.jsonl"}
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    "error, code, expected",
    [
        (InputError("two\nlines"), 2, "error: two lines\n"),
        (DataNotFound("not here:\n  1. look there"), 66, "error: not here:\n  1. look there\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "'/x/y'"),
        (
            Stopped("stopped by SIGTERM after step 3"),
            75,
            "SIGTERM after step 3; rerun the same command",
        ),
        (KeyboardInterrupt(), 130, "resume from the last checkpoint"),
        (MemoryError("Unable to allocate 9 TiB"), 2, "config.batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\n..."), 2, "error: out of memory"),
    ],
)
def test_how_a_run_ends_that_cannot_go_on(error, code, expected, capsys, tmp_path, monkeypatch):
    def train_and_evaluate(*_):
        raise error

    monkeypatch.setattr(bahdanau_jax.training.train, "train_and_evaluate", train_and_evaluate)
    assert run.main(["run", f"--workdir={tmp_path}"]) == code
    assert expected in capsys.readouterr().err


def test_a_fault_of_our_own_keeps_its_traceback(tmp_path, monkeypatch):
    def train_and_evaluate(*_):
        raise KeyError("a bug")

    monkeypatch.setattr(bahdanau_jax.training.train, "train_and_evaluate", train_and_evaluate)
    with pytest.raises(KeyError):
        run.main(["run", f"--workdir={tmp_path}"])


def test_ctrl_c_while_importing_ends_at_once_and_is_ours_again_afterwards():
    ours = signal.getsignal(signal.SIGINT)
    run._import_training(ConfigDict())
    assert signal.getsignal(signal.SIGINT) is ours


def test_what_a_library_s_thread_prints_about_a_failure_stays_off_the_terminal():
    source = """
import asyncio, logging, sys, threading, warnings
from experiments import run
run._quiet_libraries()
def fail(): raise OSError("in a thread")
def unraisable():
    class Dying:
        def __del__(self): raise RuntimeError("in a callback")
    Dying()
for target in (fail, unraisable):
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
class Waiting:
    def __await__(self): yield
async def left_over():
    try: await Waiting()
    except GeneratorExit: raise RuntimeError("thrown away")
coroutine = left_over()
coroutine.send(None)
del coroutine
logging.getLogger("absl").error("told twice")
logging.getLogger("asyncio").error("told twice")
warnings.warn("shown as one line")
fail()
"""
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    first, *trace = done.stderr.splitlines()
    assert first == "warning: shown as one line"
    assert trace[0].startswith("Traceback") and trace[-1] == "OSError: in a thread"
    assert sum(line.startswith("Traceback") for line in trace) == 1


def test_help_tells_the_flags(capsys):
    assert run.main(["run", "--help"]) == 0
    help_text = capsys.readouterr().out
    assert "--config" in help_text and "--workdir" in help_text


def test_the_program_itself_from_another_folder_that_has_experiments_too(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "experiments.run", "--config.epochs=abc"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
