"""The tables at the start and at the end of a run."""

import io
import math

import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs import console as shown
from bahdanau_jax.token_ids import FIRST_WORD, PAD, START, UNKNOWN


class Layered(nnx.Module):
    """Parameters at the root, in a list and beside dropout, whose state is no parameter."""

    def __init__(self, rngs):
        self.words = nnx.Embed(10, 4, rngs=rngs)
        self.stack = nnx.List([nnx.Linear(4, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.scale = nnx.Param(np.ones(()))


def printed(show, *args, terminal=False, width=100, **kwargs):
    file = io.StringIO()
    show(Console(file=file, width=width, force_terminal=terminal, highlight=False), *args, **kwargs)
    return file.getvalue()


def result(tmp_path, **changed):
    splits = {
        "train": {"n": 22_500, "loss": 0.2, "accuracy": 0.93},
        "validation": {"n": 2_500, "loss": 0.3, "accuracy": 0.87, "interval": [0.8568, 0.8828]},
        "test": {"n": 25_000, "loss": 0.31, "accuracy": 0.88, "interval": [0.8759, 0.8840]},
    }
    return {
        "test_description": "IMDB test split",
        "splits": splits,
        "seed": 0,
        "epochs": 3,
        "steps": 264,
        "wall_clock_seconds": 1815.2,
        "train_seconds": 1700.0,
        "parameters": 1_488_489,
        "date": "2026-01-02T03:04:05+01:00",
        "workdir": str(tmp_path),
    } | changed


def test_layers_hold_each_parameter_once_and_nothing_else():
    model = Layered(nnx.Rngs(0))
    rows = {layer: (parts, count) for layer, parts, count in shown.layers(model)}
    assert rows == {
        "words": ("embedding[10,4]", 40),
        "stack.0": ("kernel[4,3] bias[3]", 15),
        "stack.1": ("kernel[3,3] bias[3]", 12),
        "norm": ("bias[3] scale[3]", 6),
        "(model)": ("scale[]", 1),
    }
    assert shown.parameter_count(model) == 74
    assert "74" in shown.plain_text(shown.layer_table(model)).splitlines()[-1]


def test_layers_come_in_the_order_in_which_the_model_makes_them():
    assert [layer for layer, _, _ in shown.layers(Layered(nnx.Rngs(0)))][:2] == ["words", "stack.0"]


def test_a_model_of_shapes_only_has_the_same_layers():
    abstract = nnx.eval_shape(lambda: Layered(nnx.Rngs(0)))
    assert sorted(shown.layers(abstract)) == sorted(shown.layers(Layered(nnx.Rngs(0))))


def test_a_model_without_parameters_has_an_empty_table():
    assert shown.parameter_count(nnx.Dropout(0.5, rngs=nnx.Rngs(0))) == 0
    shown.plain_text(shown.layer_table(nnx.Dropout(0.5, rngs=nnx.Rngs(0))))


def test_data_figures_count_what_exceeds_the_cut():
    figures = shown.data_figures(np.array([499, 500, 501, 900]), max_length=500, coverage=0.9)
    assert figures["reviews"] == 4 and figures["longest"] == 900 and figures["mean_length"] == 600
    assert figures["share_cut"] == 0.5  # 500 ids fit
    assert shown.data_figures(np.array([], int), max_length=500, coverage=None)["reviews"] == 0


def test_coverage_counts_words_and_not_padding_or_the_start_id():
    reviews = [np.array([PAD, START, FIRST_WORD, UNKNOWN]), np.array([START, FIRST_WORD + 9] * 2)]
    assert shown.coverage(reviews) == 3 / 4
    assert shown.coverage([np.array([START])]) is None


@pytest.mark.parametrize("width", [80, 120])
def test_start_shows_everything_within_the_width(width, monkeypatch):
    monkeypatch.setattr(shown, "hardware", lambda: {"cpu": "A Processor", "cores": 2})
    figures = shown.data_figures(np.array([10, 2494]), max_length=500, coverage=0.9512)
    empty = shown.data_figures(np.array([], int), max_length=500, coverage=None)
    logged = []
    text = printed(
        shown.show_start,
        width=width,
        devices=["2 x cpu"],
        settings={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
        data_figures={"train": figures, "validation": empty},
        model=Layered(nnx.Rngs(0)),
        log=logged.append,
    )
    for expected in (
        "2 x cpu",
        "A Processor, 2 cores",
        "hugetlb=1",
        "1,252.00",
        "2,494",
        "50.0% at 500",
        "95.12%",
        "74",
    ):
        assert expected in text
        assert expected in "\n".join(logged)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_held_out_reviews_are_never_shown_as_the_test_split(tmp_path, width):
    description = "5,000 reviews held out of IMDB's train split (not IMDB's test split)"
    embedded = result(tmp_path, test_description=description)
    lines = printed(shown.show_result, embedded, width=width).splitlines()
    # The label may wrap: put its parts, which stand left of the figures, together again.
    label = " ".join(line.split("   ")[0].strip() for line in lines)
    assert f"test: {description}" in label
    assert any("test:" in line and "0.8800" in line for line in lines)


def test_result_gives_intervals_for_what_was_not_trained_on(tmp_path):
    lines = printed(shown.show_result, result(tmp_path)).splitlines()
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert " to " not in rows["train"]
    assert "0.8568 to 0.8828" in rows["validation"]
    assert "0.8759 to 0.8840" in rows["test:"]
    assert "30 min 15 s (training 28 min 20 s)" in rows["time"]
    assert "1,488,489" in rows["parameters"]


def test_result_names_the_whole_folder_and_the_files_in_it(tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    (folder / "metrics.jsonl").touch()
    text = printed(shown.show_result, result(folder), width=80)
    assert str(folder) in text
    assert "metrics.jsonl" in text and "checkpoints" not in text


def test_an_already_finished_run_shows_the_same_table_below_a_line(tmp_path):
    fresh = printed(shown.show_result, result(tmp_path))
    again = printed(shown.show_result, result(tmp_path), already_finished=True)
    assert again.startswith("already finished on 2026-01-02") and again.endswith(fresh)


def test_a_diverged_run_still_gets_its_table(tmp_path):
    diverged = result(tmp_path)
    diverged["splits"]["test"] = {"n": 10, "loss": math.nan, "accuracy": math.nan}
    diverged["splits"]["validation"] = {"n": 0, "loss": None, "accuracy": None}
    assert "nan" in printed(shown.show_result, diverged)


@pytest.mark.parametrize(
    "damaged", [None, [], {}, {"workdir": 3}, {"workdir": "/x"}, "accuracy", "interval"]
)
def test_a_damaged_result_is_refused_in_one_line_with_nothing_shown(damaged, tmp_path):
    if damaged in ("accuracy", "interval"):
        name, damaged = damaged, result(tmp_path)
        damaged["splits"]["test"][name] = ["high"]
    file = io.StringIO()
    with pytest.raises(
        InputError, match=r"^the run folder's result\.json is damaged .*; if the checkpoints"
    ):
        shown.show_result(Console(file=file), damaged, already_finished=True)
    assert file.getvalue() == ""


def test_no_control_codes_where_stdout_is_no_terminal(tmp_path):
    assert "\x1b" in printed(shown.show_result, result(tmp_path), terminal=True)
    assert "\x1b" not in printed(shown.show_result, result(tmp_path))


def test_no_control_codes_in_text_for_files_whatever_the_environment_forces(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    table = shown.layer_table(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    text = shown.plain_text(table)
    assert "kernel[2,3]" in text and "\x1b" not in text
    shown.make_console().print(table)
    printed = capsys.readouterr().out
    assert "kernel[2,3]" in printed and "\x1b" not in printed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (185, "3 min 05 s"),
     (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min"), (90_000, "25 h 00 min")],
)  # fmt: skip
def test_seconds_are_printed_in_two_units(seconds, text):
    assert shown.format_seconds(seconds) == text
