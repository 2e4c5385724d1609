"""A sweep checks everything first, runs what is not finished, and summarises each config."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from bahdanau_jax.data.dataset import Examples
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.significance import bootstrap_interval, mcnemar, mean_interval
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.runs.predictions import write_predictions
from bahdanau_jax.runs.safe_files import write_json
from experiments import ablation, config_file, sweep, sweep_table

TINY = "experiments/imdb_tiny.py"
SMALL = [
    "--config.data.train_size=32", "--config.data.validation_size=10", "--config.data.test_size=20",
    "--config.model.embedding_features=4", "--config.model.hidden_features=4",
    "--config.model.attention_units=4", "--config.model.num_layers=1",
    "--config.bucket_lengths=(64,)", "--config.max_length=64", "--config.batch_size=16", "--config.epochs=1",
]  # fmt: skip
LABELS = np.arange(20) % 2


def write_finished(workdir, correct, *, seconds=10.0, memory=2_000_000_000, labels=LABELS):
    """Writes the files of a finished run; `correct` says which reviews it classified correctly."""
    workdir.mkdir(parents=True, exist_ok=True)
    labels = np.array(labels, np.int32)
    examples = Examples(["x"] * len(labels), labels, [f"test/{i}" for i in range(len(labels))])
    logits = np.where(np.asarray(correct, bool) == (labels == 1), 2.0, -2.0)[:, None]
    both = {split: (examples, logits) for split in ("validation", "test")}
    write_predictions(workdir / "predictions.jsonl", both)
    accuracy = float(np.mean(correct))
    result = {
        "splits": {"validation": {"accuracy": accuracy / 2}, "test": {"accuracy": accuracy}},
        "wall_clock_seconds": seconds,
        "parameters": 1_234,
        "peak_memory_bytes": memory,
        "peak_device_memory_bytes": None,
        "hardware": {"cpu": "A Processor", "cores": 2},
        "commit": "0123456789",
        "date": "2026-11-24T00:00:00+00:00",
    }
    write_json(workdir / "result.json", result)
    return workdir


def finished(tmp_path, correct, **kwargs):
    folder = tmp_path / f"finished{len(list(tmp_path.iterdir()))}"
    return sweep_table.read_finished(write_finished(folder, correct, **kwargs))


def rows_of(folder):
    return list(csv.DictReader(io.StringIO((folder / "sweep.csv").read_text())))


def parsed(*arguments):
    """The settings and the folder of a run with these arguments."""
    config, workdir = config_file.parse(["run", *arguments])
    return parse_config(config).model_dump(), workdir


@pytest.fixture
def no_process(monkeypatch):
    """Fails a test that starts a run."""
    monkeypatch.setattr(sweep, "execute", None)


def test_a_row_summarises_its_seeds(tmp_path):
    rng = np.random.default_rng(0)
    correct = rng.random((3, 20)) < 0.8
    baseline = finished(tmp_path, rng.random(20) < 0.5)
    runs = {
        seed: finished(tmp_path, x, seconds=10.0 + seed, memory=10**9 * (seed + 1))
        for seed, x in enumerate(correct)
    }
    row = sweep_table.make_row("a", "b", runs, baseline)
    accuracies = correct.mean(axis=1)
    assert (row.config, row.variant, row.seeds, row.remarks) == ("a", "b", 3, "")
    assert row.test_mean == pytest.approx(accuracies.mean())
    assert row.test_sd == pytest.approx(accuracies.std(ddof=1))
    assert row.validation_mean == pytest.approx(accuracies.mean() / 2)
    assert (row.test_low, row.test_high) == bootstrap_interval(correct)
    assert row.minus_baseline == pytest.approx(accuracies.mean() - baseline.test)
    right = baseline.predictions.correct
    assert row.mcnemar_p == max(mcnemar(x, right).p_value for x in correct)
    assert (row.wall_clock_seconds, row.parameters, row.peak_memory_bytes) == (11, 1_234, 3 * 10**9)
    assert row.made == "A Processor, 2 cores, commit 0123456, 2026-11-24"


def test_a_variant_is_paired_with_its_config_seed_by_seed(tmp_path):
    rng = np.random.default_rng(0)
    right, wrong = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    config, variant = rng.random((2, 3, 20)) < 0.7
    unchanged = {seed: finished(tmp_path, x) for seed, x in enumerate(config)}
    runs = {seed: finished(tmp_path, x) for seed, x in enumerate(variant)}
    row = sweep_table.make_row("a", "b", runs, unchanged=unchanged)
    difference = 1.0 * variant - config
    assert row.validation_loss == pytest.approx(np.where(variant, right, wrong).mean(), abs=1e-6)
    assert row.accuracy_difference == pytest.approx(difference.mean())
    assert row.loss_difference == pytest.approx((right - wrong) * difference.mean(), abs=1e-6)
    low, high = mean_interval(difference)
    assert (row.accuracy_difference_low, row.accuracy_difference_high) == (low, high)
    # With two outcomes a review, the loss's draws are the accuracy's, mirrored and scaled.
    ends = ((right - wrong) * high, (right - wrong) * low)
    assert (row.loss_difference_low, row.loss_difference_high) == pytest.approx(ends, abs=1e-6)
    text = f"{row.accuracy_difference:+.4f} ({low:+.4f} to {high:+.4f})"
    assert text in sweep_table.to_markdown([row])
    # Only seeds that both have, on the same reviews. The config itself is compared with nothing.
    one = sweep_table.make_row("a", "b", runs, unchanged={1: unchanged[1], 2: "not finished yet"})
    assert one.accuracy_difference == pytest.approx(difference[1].mean())
    other = {0: finished(tmp_path, config[0], labels=1 - LABELS)}
    assert sweep_table.make_row("a", "b", runs, unchanged=other).loss_difference is None
    assert "minus" not in sweep_table.to_markdown([sweep_table.make_row("a", "", unchanged)])


def test_seeds_tested_on_other_reviews_are_not_paired(tmp_path):
    """Made-up reviews differ from seed to seed: their intervals draw from all of them."""
    correct = np.arange(20) < 15
    runs = {0: finished(tmp_path, correct), 1: finished(tmp_path, correct[:], labels=1 - LABELS)}
    row = sweep_table.make_row("a", "", runs, runs[0])
    assert row.remarks == "seed 1 was tested on other reviews than the baseline"
    assert row.mcnemar_p is None and row.minus_baseline is None
    assert (row.test_low, row.test_high) == bootstrap_interval(np.tile(correct, 2))


def test_an_unfinished_run_is_a_remark(tmp_path):
    runs = {0: finished(tmp_path, np.ones(20)), 1: "failed: out of memory", 2: "not finished yet"}
    row = sweep_table.make_row("a", "", runs)
    assert row.seeds == 1 and row.test_sd is None
    assert row.remarks == "seed 1 failed: out of memory; seed 2 not finished yet"
    nothing = sweep_table.make_row("a", "b", {0: "failed: a | b\nc"})
    assert (nothing.seeds, nothing.test_mean) == (0, None)
    markdown = sweep_table.to_markdown([row, nothing], about="how")
    assert markdown.startswith("how\n\n| config | variant | seeds | validation | loss | test |")
    assert "| 1.0000 |" in markdown and "a \\| b c |" in markdown
    assert "McNemar" not in markdown  # no baseline
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({line.replace("\\|", "").count("|") for line in table}) == 1


def test_the_csv_holds_every_field_and_digit(tmp_path):
    row = sweep_table.make_row("a", "", {0: finished(tmp_path, np.arange(20) < 13)})
    (line,) = csv.DictReader(io.StringIO(sweep_table.to_csv([row])))
    assert float(line["test_mean"]) == row.test_mean and line["test_sd"] == ""
    assert float(line["test_low"]) == row.test_low and line["mcnemar_p"] == ""


def test_small_p_values_and_old_runs_are_shown(tmp_path):
    labels = np.arange(100) % 2
    baseline = finished(tmp_path, np.arange(100) < 50, labels=labels)
    better = finished(tmp_path, np.ones(100), labels=labels, memory=None)
    row = sweep_table.make_row("a", "", {0: better}, baseline)
    assert row.mcnemar_p == pytest.approx(2 / 2**50)
    markdown = sweep_table.to_markdown([row])
    assert "| < 0.0001 |" in markdown and "| +0.5000 |" in markdown
    assert "peak memory" not in markdown


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "result.json").write_text("{"),
        lambda folder: (folder / "result.json").write_text("[]"),
        lambda folder: (folder / "result.json").write_text('{"splits": {"validation": 3}}'),
        lambda folder: (folder / "predictions.jsonl").write_text("{}\n"),
        lambda folder: (folder / "predictions.jsonl").unlink(),
    ],
)
def test_a_damaged_folder_is_named(tmp_path, damage):
    damage(write_finished(tmp_path / "run", np.ones(20)))
    with pytest.raises(InputError, match=f"{tmp_path}/run/(result.json|predictions.jsonl)"):
        sweep_table.read_finished(tmp_path / "run")


def test_the_plan_has_every_config_variant_and_seed_with_its_fields(tmp_path):
    configs = ["experiments/imdb.py", TINY]
    runs = sweep.plan(configs, [3, 4], ["--config.epochs=7"], out=tmp_path)
    assert [(x.config, x.seed, x.workdir.name) for x in runs] == [
        ("imdb", 3, "imdb-seed3"),
        ("imdb_tiny", 3, "imdb_tiny-seed3"),
        ("imdb", 4, "imdb-seed4"),
        ("imdb_tiny", 4, "imdb_tiny-seed4"),
    ]
    assert all(x.settings["epochs"] == 7 and x.settings["seed"] == x.seed for x in runs)
    assert all(parsed(*x.arguments) == (x.settings, x.workdir) for x in runs)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_every_variant_of_the_ablation_is_a_valid_config_that_differs(name, tmp_path):
    config = f"experiments/{name}.py"
    base, *variants = sweep.plan([config], [0], [], out=tmp_path, with_variants=True)
    assert [x.variant for x in variants] == list(ablation.VARIANTS[name])
    for planned in variants:
        assert planned.settings != base.settings
        assert planned.workdir.name == f"{name}-{planned.variant}-seed0"


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        (
            {"x": {"model.droput": 0.0}},
            "variant x of imdb_tiny: config has no field 'model.droput'",
        ),
        ({"x": {"model.dropout": 2.0}}, "variant x of imdb_tiny: config.model.dropout is 2.0"),
        ({"a/b": {}}, "variant 'a/b' of imdb_tiny"),
    ],
)
def test_a_wrong_variant_is_refused(variants, expected, monkeypatch, tmp_path):
    monkeypatch.setitem(ablation.VARIANTS, "imdb_tiny", variants)
    with pytest.raises(InputError, match=expected):
        sweep.plan([TINY], [0], [], out=tmp_path, with_variants=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--configs="], "--configs is empty"),
        (["--configs=experiments/imbd.py"], "did you mean experiments/imdb.py"),
        ([f"--configs={TINY},{TINY}"], "--configs names imdb_tiny twice"),
        (["--seeds=0,x"], "--seeds is 0,x; expected integers"),
        (["--seeds=0,0"], "--seeds names 0 twice"),
        (["--seeds=-1"], "config.seed is -1"),
        (["--seed=0"], "did you mean --seeds"),
        (["--config=experiments/imdb.py"], "expected --configs"),
        (["--config.seed=3"], "expected --seeds"),
        (["--config.batchsize=3"], "batch_size"),
        (["--config.epochs=0"], "config.epochs is 0"),
        (["--workdir=x"], "unknown flag --workdir"),
        (["--ablation", "--configs=experiments/imdb_unmasked.py"], "no variants of imdb_unmasked"),
        (["--baseline=no/such/folder"], "no/such/folder/result.json cannot be read"),
        (["--baseline="], "--baseline is empty"),
        (["x"], "unexpected argument 'x'"),
    ],
)
def test_wrong_flags_are_refused_in_one_line_before_any_run(
    arguments, expected, capsys, tmp_path, no_process
):
    assert sweep.main(["sweep", *arguments, f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and expected in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_folder_of_another_config_is_refused_before_any_run(capsys, tmp_path, no_process):
    settings, _ = parsed(f"--config={TINY}", "--config.seed=1")
    with open_workdir(tmp_path / "imdb_tiny-seed1", settings) as workdir:
        write_finished(workdir, np.ones(20))
    arguments = [f"--configs={TINY}", "--seeds=0,1", "--config.epochs=9", f"--out={tmp_path}"]
    assert sweep.main(["sweep", *arguments]) == 2
    assert "epochs: 3 in the folder, 9 asked for" in capsys.readouterr().err


def test_finished_runs_are_not_run_again(capsys, tmp_path, no_process):
    for seed in (0, 1):
        settings, _ = parsed(f"--config={TINY}", f"--config.seed={seed}")
        with open_workdir(tmp_path / f"imdb_tiny-seed{seed}", settings) as workdir:
            write_finished(workdir, np.arange(20) < 18 + seed)
    baseline = write_finished(tmp_path / "other", np.arange(20) < 10)
    arguments = [f"--configs={TINY}", "--seeds=0,1", f"--out={tmp_path}", f"--baseline={baseline}"]
    assert sweep.main(["sweep", *arguments]) == 0
    first, second = rows_of(tmp_path)
    assert (first["config"], first["test_mean"]) == ("baseline: other", "0.5")
    assert (second["config"], second["seeds"]) == ("imdb_tiny", "2")
    assert float(second["test_mean"]) == pytest.approx(0.925)
    # 8 and 9 reviews that only the run got right, none that only the baseline did.
    assert float(second["mcnemar_p"]) == pytest.approx(2 / 2**8)
    assert (tmp_path / "sweep.md").read_text() in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.slow
def test_a_sweep_with_a_run_that_fails(capfd, tmp_path, monkeypatch):
    nowhere = {"data.source": "tfds", "data.name": "nowhere", "data.data_dir": str(tmp_path)}
    monkeypatch.setitem(ablation.VARIANTS, "imdb_tiny", {"nowhere": nowhere})
    out = tmp_path / "out"
    arguments = [f"--configs={TINY}", "--ablation", "--seeds=5", f"--out={out}", *SMALL]
    assert sweep.main(["sweep", *arguments]) == 1
    output = capfd.readouterr()
    assert "1 of 2 runs failed" in output.err
    done, failed = rows_of(out)
    result = json.loads((out / "imdb_tiny-seed5" / "result.json").read_text())
    assert result["seed"] == 5 and result["splits"]["train"]["n"] == 32
    assert float(done["test_mean"]) == result["splits"]["test"]["accuracy"]
    assert [float(done["test_low"]), float(done["test_high"])] == result["splits"]["test"][
        "interval"
    ]
    assert int(done["peak_memory_bytes"]) == result["peak_memory_bytes"]
    assert (failed["variant"], failed["seeds"]) == ("nowhere", "0")
    assert failed["remarks"].startswith("seed 5 failed: nowhere is not prepared in")
    assert "seed 5 failed: nowhere" in (out / "sweep.md").read_text()


def test_a_failed_run_is_described_in_one_line(monkeypatch, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "run.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setattr(config_file, "ROOT", tmp_path)
    assert sweep.execute([]) == "killed by SIGKILL"
    (tmp_path / "experiments" / "run.py").write_text("raise KeyError('a bug')\n")
    assert sweep.execute([]) == "KeyError: 'a bug'"
    (tmp_path / "experiments" / "run.py").write_text("raise SystemExit(3)\n")
    assert sweep.execute([]) == "exit code 3"
    shutil.rmtree(tmp_path / "experiments")
