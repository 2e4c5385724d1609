"""A short torture test, and tests that it notices differences."""

import json
import random
import shutil

import pytest

from tests.torture import __main__
from tests.torture.compare import differences
from tests.torture.faults import DAMAGE, EVALUATING, STARTED, damages

SMALL = [
    "--config.data.train_size=90",
    "--config.data.validation_size=20",
    "--config.data.test_size=30",
    "--config.model.embedding_features=4",
    "--config.model.hidden_features=4",
    "--config.model.num_layers=1",
    "--config.batch_size=16",
    "--config.epochs=2",
    "--config.bucket_lengths=(64,)",
    "--config.checkpoint.every_steps=4",
    "--config.log_every_steps=3",
]


@pytest.mark.slow
@pytest.mark.long
def test_killed_stopped_and_damaged_runs_are_bit_identical(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    counts = ["--kills=1", "--terms=1", "--corruptions=2", f"--out={tmp_path / 'torture'}"]
    assert __main__.main(["torture", *counts, *SMALL]) == 0, capsys.readouterr().out
    found = json.loads((tmp_path / "torture" / "torture.json").read_text())
    assert found["failures"] == []
    assert sum(n for name, n in found["counts"].items() if "exit code" in name) == 2
    assert [found["counts"][f"corruption: {kind}"] for kind in ("truncate", "flip")] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda line: line.replace('"loss": 0.', '"loss": 1.'), "from line 1 on"),
        (lambda line: "", "from line 1 on"),
        (lambda line: line + line, "from line 2 on"),
    ],
)
def test_a_changed_missing_or_repeated_line_is_noticed(tiny_run, tmp_path, change, expected):
    shutil.copytree(tiny_run, tmp_path / "run")
    assert differences(tmp_path / "run", tiny_run) == []
    file = tmp_path / "run" / "metrics.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join([change(first), *rest]))
    [found] = differences(tmp_path / "run", tiny_run)
    assert found.startswith("metrics.jsonl") and expected in found


@pytest.mark.slow
def test_other_arrays_and_predictions_are_noticed(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    predictions = (tmp_path / "run" / "predictions.jsonl").read_text()
    (tmp_path / "run" / "predictions.jsonl").write_text(predictions.replace("test/3", "test/4"))
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "6").rename(checkpoints / "7")
    found = differences(tmp_path / "run", tiny_run)
    assert found == ["the last checkpoint's step", "predictions.jsonl"]


def test_every_kind_of_damage_is_planned():
    planned = damages(20, None)
    assert {kind for kind, _ in planned} == {"truncate", "flip", "delete", "empty"}
    assert [where for _, where in planned].count("every one") == 4


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_changes_the_file(kind, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    DAMAGE[kind](file, random.Random(0))
    assert not file.exists() or file.read_bytes() != b"content"


def test_wrong_flags_are_refused(tmp_path, capsys):
    assert __main__.main(["torture", f"--out={tmp_path}"]) == 2
    assert "expected a new folder" in capsys.readouterr().err
    assert __main__.main(["torture", "--kils=3"]) == 2
    assert "did you mean --kills" in capsys.readouterr().err


@pytest.mark.slow
def test_the_log_shows_the_start_and_the_final_evaluation(tiny_run):
    log = (tiny_run / "train.log").read_text()
    assert log.count(STARTED) == log.count(EVALUATING) == 1
