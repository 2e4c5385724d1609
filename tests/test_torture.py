"""The torture test in its short form, and that it would notice what it is there to notice."""

import json
import shutil

import pytest

from experiments import torture
from experiments.torture_compare import differences
from experiments.torture_faults import damages, delete

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


def test_struck_and_damaged_runs_end_with_the_same_bits(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    counts = ["--kills=1", "--terms=1", "--corruptions=2", f"--out={tmp_path / 'torture'}"]
    assert torture.main(["torture", *counts, *SMALL]) == 0, capsys.readouterr().out
    found = json.loads((tmp_path / "torture" / "torture.json").read_text())
    assert found["failures"] == []
    assert sum(n for name, n in found["counts"].items() if "exit code" in name) == 2
    assert [found["counts"][f"corruption: {kind}"] for kind in ("truncate", "flip")] == [1, 1]


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda line: line.replace('"loss": 0.', '"loss": 1.'), "from line 1 on"),
        (lambda line: "", "from line 1 on"),
        (lambda line: line + line, "from line 2 on"),
    ],
)
def test_a_line_that_is_different_missing_or_double_is_noticed(
    tiny_run, tmp_path, change, expected
):
    shutil.copytree(tiny_run, tmp_path / "run")
    assert differences(tmp_path / "run", tiny_run) == []
    file = tmp_path / "run" / "metrics.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join([change(first), *rest]))
    [found] = differences(tmp_path / "run", tiny_run)
    assert found.startswith("metrics.jsonl") and expected in found


def test_another_run_s_bits_are_noticed(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    predictions = (tmp_path / "run" / "predictions.jsonl").read_text()
    (tmp_path / "run" / "predictions.jsonl").write_text(predictions.replace("test/3", "test/4"))
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "6").rename(checkpoints / "7")
    found = differences(tmp_path / "run", tiny_run)
    assert found == ["the last checkpoint's step", "predictions.jsonl"]


def test_damage_of_every_kind_and_place_is_planned():
    planned = damages(20, None)
    assert {kind for kind, _ in planned} == {"truncate", "flip", "delete", "empty"}
    assert [where for _, where in planned].count("every one") == 4


def test_what_is_asked_for_is_checked(tmp_path, capsys):
    delete(_touched(tmp_path / "x"), None)
    assert torture.main(["torture", f"--out={tmp_path}"]) == 2
    assert "expected a new folder" in capsys.readouterr().err
    assert torture.main(["torture", "--kils=3"]) == 2
    assert "did you mean --kills" in capsys.readouterr().err


def _touched(path):
    path.touch()
    return path
