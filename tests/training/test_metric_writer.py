"""What a run leaves behind: no gap, no double line, nothing lost when it is killed."""

import io
import json
import math
import os
import re
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from bahdanau_jax.errors import InputError
from bahdanau_jax.training import metric_writer as recorder_module
from bahdanau_jax.training.metric_writer import MetricWriter


def quiet(**settings) -> Any:
    return Console(file=io.StringIO(), highlight=False, **settings)


def record(workdir, steps, *, resume_step=0, console=None, stop=None):
    """A run of 60 steps with an evaluation each 20; `stop` leaves the block as an error would."""
    with MetricWriter(
        workdir, total_steps=60, resume_step=resume_step, console=console or quiet()
    ) as recorder:
        for step in steps:
            recorder.advance(step)
            epoch = 1 + (step - 1) // 20
            if step % 5 == 0:
                recorder.step(
                    step, epoch=epoch, loss=1 / step, accuracy=0.5, examples_per_second=310
                )
            if step % 20 == 0:
                recorder.epoch(
                    step, epoch=epoch, split="validation", loss=0.3, accuracy=0.9, n=2500, seconds=9
                )
        if stop is not None:
            raise stop


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def events(workdir):
    """The scalars as TensorBoard keeps them: [(step, tag)], with the purges applied."""
    points = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            checks = struct.unpack("<I", data[8:12]), struct.unpack("<I", data[12 + length :][:4])
            body = data[12 : 12 + length]
            assert checks == ((masked_crc32c(data[:8]),), (masked_crc32c(body),))
            event = vars(event_pb2)["Event"].FromString(body)
            if event.HasField("session_log"):
                points = [point for point in points if point[0] < event.step]
            points += [(event.step, value.tag) for value in event.summary.value]
            data = data[16 + length :]
    return points


def test_lines_have_the_fields_and_every_digit(tmp_path):
    one: Any = np.int32(1)
    loss: Any = np.float32(0.1)
    with MetricWriter(tmp_path, total_steps=10, console=quiet()) as recorder:
        recorder.step(one, epoch=1, loss=loss, accuracy=2 / 3, examples_per_second=310)
        recorder.epoch(1, epoch=1, split="test", loss=1e-9, accuracy=1, n=25_000, seconds=9.25)
    assert metrics(tmp_path) == [
        {"step": 1, "epoch": 1, "split": "train", "loss": float(loss), "accuracy": 2 / 3,
         "examples_per_second": 310.0},
        {"step": 1, "epoch": 1, "split": "test", "loss": 1e-9, "accuracy": 1.0, "n": 25_000,
         "seconds": 9.25},
    ]  # fmt: skip


def test_a_loss_that_is_not_finite_is_null_and_stops_nothing(tmp_path):
    with MetricWriter(tmp_path, total_steps=10, console=quiet()) as recorder:
        for step, loss in ((1, math.nan), (2, math.inf), (3, 0.5)):
            recorder.step(step, epoch=1, loss=loss, accuracy=0.5, examples_per_second=1)
    assert [line["loss"] for line in metrics(tmp_path)] == [None, None, 0.5]


def test_each_line_is_on_disk_when_the_call_returns(tmp_path):
    with MetricWriter(tmp_path, total_steps=10, console=quiet()) as recorder:
        recorder.step(1, epoch=1, loss=0.5, accuracy=0.5, examples_per_second=1)
        assert len(metrics(tmp_path)) == 1
        assert len(events(tmp_path)) == 3
        assert len((tmp_path / "train.log").read_text().splitlines()) == 1


@pytest.mark.parametrize("torn", ["", '{"step": 45, "epo', '{"step": 40, "epoch": 2, "loss": 0.1'])
@pytest.mark.parametrize("resume_step", [0, 20, 33, 40])
def test_a_resumed_run_leaves_the_lines_of_one_that_was_never_stopped(tmp_path, torn, resume_step):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    record(whole, range(1, 61))
    record(stopped, range(1, 44))
    with open(stopped / "metrics.jsonl", "a") as file:
        file.write(torn)
    record(stopped, range(resume_step + 1, 61), resume_step=resume_step)
    assert metrics(stopped) == metrics(whole)
    assert events(stopped) == events(whole)
    assert not (stopped / "metrics.jsonl.tmp").exists()


def test_a_last_line_that_lacks_only_its_end_of_line_is_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n{"step": 10}')
    record(tmp_path, [15], resume_step=10)
    assert [line["step"] for line in metrics(tmp_path)] == [5, 10, 15]


def test_starts_within_one_second_keep_each_other_s_events(tmp_path):
    for _ in range(3):
        record(tmp_path, [])
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3


def test_training_and_evaluation_of_the_training_split_are_two_curves(tmp_path):
    with MetricWriter(tmp_path, total_steps=10, console=quiet()) as recorder:
        recorder.step(10, epoch=1, loss=0.5, accuracy=0.5, examples_per_second=1)
        recorder.epoch(10, epoch=1, split="train", loss=0.4, accuracy=0.6, n=9, seconds=1)
    assert len(set(events(tmp_path))) == len(events(tmp_path)) == 5


def test_damage_before_the_last_line_is_refused_and_left_as_it_is(tmp_path):
    text = '{"step": 5}\nnot json\n{"step": 15}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 2 is b'not json'; expected"):
        MetricWriter(tmp_path, total_steps=60, resume_step=10, console=quiet())
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_a_line_nested_too_deep_for_json_is_refused_as_any_other(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("[" * 100_000 + '\n{"step": 5}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 1 is"):
        MetricWriter(tmp_path, total_steps=60, resume_step=10, console=quiet())


def test_a_file_that_cannot_be_opened_is_named_in_one_line(tmp_path):
    (tmp_path / "train.log").mkdir()
    with pytest.raises(InputError, match=r"^cannot write \S+train\.log: Is a directory$"):
        MetricWriter(tmp_path, total_steps=60, console=quiet())


def test_a_full_disk_is_named_in_one_line_and_costs_nothing_that_was_written(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        pytest.raises(InputError, match=r"^cannot write \S+metrics\.jsonl: File too large$"),
        MetricWriter(tmp_path, total_steps=60, console=quiet()) as recorder,
    ):
        recorder.step(5, epoch=1, loss=0.5, accuracy=0.5, examples_per_second=1)
        size = (tmp_path / "metrics.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
        try:
            recorder.step(10, epoch=1, loss=0.5, accuracy=0.5, examples_per_second=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    record(tmp_path, [10], resume_step=5)  # the part of a line that still fitted is torn
    assert [line["step"] for line in metrics(tmp_path)] == [5, 10]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run killed after two figures, where an import of TensorFlow would have ended it."""
    workdir, modules = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("modules")
    (modules / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    code = f"""
import os, signal
from bahdanau_jax.training.metric_writer import MetricWriter
recorder = MetricWriter({str(workdir)!r}, total_steps=60)
for step in (5, 10):
    recorder.step(step, epoch=1, loss=0.5, accuracy=0.5, examples_per_second=1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    project = str(Path(recorder_module.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(modules), project])},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return workdir, done


@pytest.mark.slow
def test_tensorflow_is_not_imported_even_where_it_is_installed(killed):
    _, done = killed
    assert "TensorFlow was imported" not in done.stderr
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.slow
def test_a_killed_run_can_go_on(killed):
    workdir, _ = killed
    record(workdir, [15], resume_step=10)
    assert [line["step"] for line in metrics(workdir)] == [5, 10, 15]
    assert sorted({step for step, _ in events(workdir)}) == [5, 10, 15]


def test_the_log_has_times_before_each_line_and_the_error_that_stopped_the_run(tmp_path):
    with pytest.raises(RuntimeError):
        record(tmp_path, range(1, 21), stop=RuntimeError("out of memory"))
    with MetricWriter(tmp_path, total_steps=60, resume_step=20, console=quiet()) as recorder:
        recorder.note("two\nlines")
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ", line) for line in lines)
    assert lines[-3].endswith("stopped by RuntimeError: out of memory")
    assert [line.split(" ", 1)[1] for line in lines[-2:]] == ["two", "lines"]


def test_without_a_terminal_there_are_plain_lines_at_a_bounded_rate(tmp_path, monkeypatch):
    now = iter(range(0, 1000, 4))  # four seconds between two figures
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: next(now))
    console = quiet(width=20)
    record(tmp_path, range(1, 61), console=console)
    lines = console.file.getvalue().splitlines()
    assert not any(c < " " or c == "\x7f" for line in lines for c in line)
    steps = [line.split()[3] for line in lines if "step" in line]
    assert steps == ["5/60", "20/60", "35/60", "50/60"]
    assert sum("validation" in line for line in lines) == 3
    assert "310 reviews/s" in lines[0]
    assert (tmp_path / "train.log").read_text().count(" step ") == 12


def test_a_message_is_shown_as_it_is_and_not_read_as_markup(tmp_path):
    console = quiet()
    with MetricWriter(tmp_path, total_steps=60, console=console) as recorder:
        recorder.note("config[red] :smile: model[/] = x")
    assert console.file.getvalue() == "config[red] :smile: model[/] = x\n"


def test_on_a_terminal_a_bar_shows_figures_and_notes_stand_above_it(tmp_path):
    console = quiet(force_terminal=True, width=80, _environ={"TERM": "xterm"})
    record(tmp_path, range(1, 61), console=console)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    last = [line for line in text.splitlines() if "/60" in line][-1]
    for expected in ("epoch 3", "60/60", "loss 0.0167", "accuracy 0.5000", "310 reviews/s"):
        assert expected in last
    assert text.splitlines()[-1].startswith("epoch 3  validation")
    assert "\x1b" not in (tmp_path / "train.log").read_text()


def test_the_terminal_gets_its_cursor_back_when_the_run_is_interrupted(tmp_path):
    console = quiet(force_terminal=True, width=80, _environ={"TERM": "xterm"})
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path, range(1, 6), console=console, stop=KeyboardInterrupt())
    text = console.file.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_closing_twice_does_no_harm(tmp_path):
    recorder = MetricWriter(tmp_path, total_steps=1, console=quiet())
    recorder.close()
    recorder.close()
