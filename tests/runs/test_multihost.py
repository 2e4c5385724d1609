"""Two processes with two devices each train like one process with one device, stop together and resume."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from bahdanau_jax.data.batches import train_batches
from bahdanau_jax.errors import InputError
from bahdanau_jax.runs import multihost
from bahdanau_jax.training import train
from experiments import imdb_tiny, run

pytestmark = pytest.mark.slow  # trains, or compiles for long

ROOT = Path(run.__file__).parent.parent
KUBEFLOW = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
OVERRIDES = {
    "data.train_size": 413, "data.validation_size": 25, "data.test_size": 30, "vocab_size": 100,
    "model.embedding_features": 4, "model.hidden_features": 4, "model.attention_units": 4,
    "model.num_layers": 1, "bucket_lengths": (64,), "batch_size": 16, "epochs": 4, "log_every_steps": 1,
    "checkpoint.every_steps": 20, "checkpoint.keep": 3,
}  # fmt: skip


def make_config():
    config = imdb_tiny.get_config()
    config.update_from_flattened_dict(OVERRIDES)
    return config


def start(workdir, count=2, devices=2):
    """The processes of a run."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable, "-m", "experiments.run", "--config=experiments/imdb_tiny.py",
        f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in OVERRIDES.items()),
        f"--coordinator=localhost:{port}", f"--processes={count}",
    ]  # fmt: skip
    return [
        subprocess.Popen(
            [*command, f"--process={i}"], env=environment, cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(count)
    ]  # fmt: skip


def ends(started, seconds=300):
    """(exit code, stdout, stderr) of each process."""
    printed = [process.communicate(timeout=seconds) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, printed, strict=True)]


def wait_for_step(workdir, step, started):
    file = workdir / "metrics.jsonl"
    while not file.exists() or file.read_bytes().count(b'"train"') < step:
        assert all(process.poll() is None for process in started), ends(started)
        time.sleep(0.01)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines]


def newest(folder):
    return max(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdecimal())


def wait_for_handler(process):
    """Waits until JAX handles SIGTERM, which is long before the first step."""
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        assert process.poll() is None, ends([process])
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        caught = int(dict(line.split(":", 1) for line in lines)["SigCgt"], 16)
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of the same run of one process and one device; not to be changed."""
    assert jax.device_count() == 1
    folder = tmp_path_factory.mktemp("alone") / "run"
    train.train_and_evaluate(make_config(), folder)
    return folder


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_pair_equals_one_process_and_resumes_after_a_kill_and_a_signal(alone, tmp_path):
    workdir = tmp_path / "run"
    # One is killed, late enough to compare 50 steps. The other one names the loss and ends.
    pair = start(workdir)
    wait_for_step(workdir, 50, pair)
    pair[1].kill()
    begun = time.monotonic()
    code, shown, errors = ends(pair[:1], seconds=60)[0]
    shown_by_other = pair[1].communicate()[0].splitlines()
    assert time.monotonic() - begun < 60
    if code == run.START_AGAIN:
        assert "error: process 0 of 2 has lost another one" in errors
    else:  # it waited for the other one's part of a checkpoint, where JAX ends it
        assert code == -signal.SIGABRT and "another task died" in errors
    # One writer; gloo's own lines come from C++, where threads write into each other's.
    gloo = re.compile(r"\[Gloo\]|peer ranks")
    assert "4 x cpu" in shown and [x for x in shown_by_other if not gloo.search(x)] == []
    assert losses(workdir)[:50] == pytest.approx(losses(alone)[:50], abs=1e-5)

    # The pair resumes. SIGTERM to one of them, even before its first step, stops both after the same step.
    step = newest(workdir)
    pair = start(workdir)
    wait_for_handler(pair[1])
    pair[1].send_signal(signal.SIGTERM)
    for code, _, errors in ends(pair):
        assert code == run.START_AGAIN and f"after step {step + 1} of" in errors
    assert newest(workdir) == step + 1

    # One process resumes from there and finishes with the same losses.
    train.train_and_evaluate(make_config(), workdir)
    assert f"resumed from the checkpoint of step {step + 1}" in (workdir / "train.log").read_text()
    assert losses(workdir) == pytest.approx(losses(alone), abs=1e-5)


@pytest.mark.long
def test_a_pair_resumes_from_the_checkpoints_of_one_process_though_the_newest_is_damaged(
    alone, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(alone, workdir)
    (workdir / "result.json").unlink()
    last = newest(workdir)
    inside = (workdir / "checkpoints" / str(last) / "state").rglob("*")
    largest = max(inside, key=lambda path: path.is_file() and path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)

    ended = ends(start(workdir))
    assert [code for code, *_ in ended] == [0, 0], ended
    log = (workdir / "train.log").read_text()
    [warning] = [line for line in log.splitlines() if "warning" in line]
    assert f"kept as {last}.damaged, going on from step" in warning
    assert losses(workdir) == pytest.approx(losses(alone), abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_process_reads_its_own_rows_of_the_same_batches(count):
    ids = [np.arange(1, 2 + i % 7, dtype=np.int32) for i in range(37)]
    labels = np.arange(37, dtype=np.int32)

    def read(index, count):
        sizes = dict(batch_size=8, bucket_lengths=(4, 8), epochs=2, seed=3)
        return list(train_batches(ids, labels, **sizes, process_index=index, process_count=count))

    whole, shares = read(0, 1), [read(i, count) for i in range(count)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(len(part.ids) == 8 // count for part in parts)
        for everyone, *own in zip(batch, *parts, strict=True):
            np.testing.assert_array_equal(everyone, np.concatenate(own))


# --- joining ------------------------------------------------------------------------------------


@pytest.fixture
def initialized(monkeypatch):
    """Replaces jax.distributed.initialize; the list holds the arguments of its calls."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append(a))
    monkeypatch.setattr(jax.config, "update", lambda *a: None)
    return calls


def test_a_single_process_joins_nothing(initialized):
    multihost.join(None, None, None)
    assert initialized == []


def test_the_environment_of_a_cluster_names_the_processes(initialized, monkeypatch):
    for name, value in KUBEFLOW.items():
        monkeypatch.setenv(name, value)
    multihost.join(None, None, None)
    multihost.join("b:2", 3, 2)  # flags come first
    assert initialized == [("a:1", 2, 1), ("b:2", 3, 2)]


def test_all_three_flags_are_given_or_none(initialized):
    multihost.join("host:1234", 2, 1)
    assert initialized == [("host:1234", 2, 1)]
    with pytest.raises(InputError, match="go together"):
        multihost.join("host:1234", 2, None)
    with pytest.raises(InputError, match="--process is 2; expected 0 to 1"):
        multihost.join("host:1234", 2, 2)


def test_the_flags_are_taken_off_the_command_line():
    rest, joining = run.take_processes(
        ["run", "--processes=2", "--config.seed=1", "--process=0", "--coordinator=a:1"]
    )
    assert rest == ["run", "--config.seed=1"] and joining == ("a:1", 2, 0)


def test_a_single_process_agrees_with_itself():
    assert multihost.any_of(True) and not multihost.any_of(False)
    assert multihost.first_says(7) == 7
    multihost.check_same("the data", "ab" * 32)
    multihost.check_alone("this")
    multihost.check_peers(RuntimeError("Gloo AllGather failed"))
    with pytest.raises(ValueError, match="mine"), multihost.told_when_one_is_gone():
        raise ValueError("mine")
