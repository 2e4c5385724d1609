"""The table of a sweep, as CSV and Markdown: a row per config and variant, over its seeds."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.significance import bootstrap_interval, mcnemar, mean_interval, spread
from bahdanau_jax.runs.console import format_seconds
from bahdanau_jax.runs.predictions import Predictions, read_predictions, same_reviews
from bahdanau_jax.runs.safe_files import read_json, write_text


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """What the table uses of a finished run's folder."""

    validation: float  # accuracies
    test: float
    validation_predictions: Predictions
    seconds: float
    parameters: int
    memory: int | None  # bytes; None: not recorded
    device_memory: int | None  # bytes; None: no accelerator, or not recorded
    predictions: Predictions  # of test
    made: str  # machine, commit and date


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table. None: unknown. The fields are the columns of the CSV."""

    config: str
    variant: str = ""
    seeds: int = 0  # finished ones
    validation_mean: float | None = None  # accuracies
    validation_sd: float | None = None
    validation_loss: float | None = None  # nats, mean
    # Variant minus config on validation, over the seeds that both have, with the 95% interval by a paired
    # bootstrap over reviews. Choices go by this.
    loss_difference: float | None = None
    loss_difference_low: float | None = None
    loss_difference_high: float | None = None
    accuracy_difference: float | None = None
    accuracy_difference_low: float | None = None
    accuracy_difference_high: float | None = None
    test_mean: float | None = None
    test_sd: float | None = None
    test_low: float | None = None  # 95% bootstrap interval of test_mean over reviews
    test_high: float | None = None
    minus_baseline: float | None = None
    mcnemar_p: float | None = None  # against the baseline; the largest over seeds
    wall_clock_seconds: float | None = None  # mean
    parameters: int | None = None
    peak_memory_bytes: int | None = None  # the largest over seeds
    peak_device_memory_bytes: int | None = None
    remarks: str = ""
    made: str = ""  # machine, commit and date; several if the seeds differ


def read_finished(workdir: str | Path) -> Finished:
    """Reads the folder of a finished run or baseline.

    Raises:
      InputError: it is not finished, or a file in it is damaged.
    """
    file = Path(workdir) / "result.json"
    result = read_json(file)
    try:
        return Finished(
            validation=float(result["splits"]["validation"]["accuracy"]),
            test=float(result["splits"]["test"]["accuracy"]),
            seconds=float(result["wall_clock_seconds"]),
            parameters=int(result["parameters"]),
            memory=result.get("peak_memory_bytes"),
            device_memory=result.get("peak_device_memory_bytes"),
            predictions=read_predictions(workdir),
            validation_predictions=read_predictions(workdir, "validation"),
            made="{cpu}, {cores} cores".format(**result["hardware"])
            + f", commit {str(result['commit'])[:7]}, {result['date'][:10]}",
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({type(error).__name__}: {error})") from error


def make_row(
    config: str,
    variant: str,
    runs: Mapping[int, Finished | str],
    baseline: Finished | None = None,
    unchanged: Mapping[int, Finished | str] | None = None,
) -> Row:
    """Summarises the runs of one config or variant.

    Args:
      config, variant: their names.
      runs: by seed, the finished run, or a remark if it is not finished.
      baseline: each seed is compared with it.
      unchanged: for a variant, the runs of the config itself, by seed.
    """
    remarks = [f"seed {seed} {why}" for seed, why in runs.items() if isinstance(why, str)]
    finished = {seed: run for seed, run in runs.items() if isinstance(run, Finished)}
    if not finished:
        return Row(config, variant, remarks="; ".join(remarks))
    several = list(finished.values())
    validation_mean, validation_sd = spread([run.validation for run in several])
    test_mean, test_sd = spread([run.test for run in several])
    # Made-up reviews differ between seeds: then the bootstrap draws from all of them.
    same = all(same_reviews(run.predictions, several[0].predictions) for run in several)
    low, high = bootstrap_interval(
        (np.stack if same else np.concatenate)([run.predictions.correct for run in several])
    )
    p_values = []
    for seed, run in finished.items():
        if baseline is None:
            continue
        if same_reviews(run.predictions, baseline.predictions):
            p_values.append(mcnemar(run.predictions.correct, baseline.predictions.correct).p_value)
        else:
            remarks.append(f"seed {seed} was tested on other reviews than the baseline")
    compared = len(p_values) == len(several)
    return Row(
        config,
        variant,
        seeds=len(several),
        validation_mean=validation_mean,
        validation_sd=validation_sd,
        validation_loss=float(np.mean([x.validation_predictions.losses.mean() for x in several])),
        **_differences(finished, unchanged or {}),
        test_mean=test_mean,
        test_sd=test_sd,
        test_low=low,
        test_high=high,
        minus_baseline=test_mean - baseline.test if baseline and compared else None,
        mcnemar_p=max(p_values) if compared else None,
        wall_clock_seconds=float(np.mean([run.seconds for run in several])),
        parameters=several[0].parameters,
        peak_memory_bytes=_largest(run.memory for run in several),
        peak_device_memory_bytes=_largest(run.device_memory for run in several),
        remarks="; ".join(remarks),
        made="; ".join(dict.fromkeys(run.made for run in several)),
    )


def _differences(
    finished: Mapping[int, Finished], unchanged: Mapping[int, Finished | str]
) -> dict[str, float]:
    """The row's fields that compare it with the config itself; {} if no seed has both."""
    pairs = [
        (run.validation_predictions, other.validation_predictions)
        for seed, run in finished.items()
        if isinstance(other := unchanged.get(seed), Finished)
        and same_reviews(run.validation_predictions, other.validation_predictions)
    ]
    if not pairs or len({len(run.ids) for run, _ in pairs}) > 1:
        return {}
    fields = {}
    for name, differences in (
        ("loss_difference", [run.losses - other.losses for run, other in pairs]),
        ("accuracy_difference", [1.0 * run.correct - other.correct for run, other in pairs]),
    ):
        fields[name] = float(np.mean(differences))
        fields[f"{name}_low"], fields[f"{name}_high"] = mean_interval(np.array(differences))
    return fields


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def to_csv(rows: Sequence[Row]) -> str:
    """All fields with every digit; unknown ones are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(Row)])
    writer.writerows(dataclasses.astuple(row) for row in rows)
    return text.getvalue()


def to_markdown(rows: Sequence[Row], *, about: str = "") -> str:
    """The table for people, without columns that are empty in every row.

    Args:
      rows: of the table.
      about: text above the table.
    """
    lines = [_cells(row) for row in rows]
    names = [name for name in lines[0] if any(line[name] for line in lines)]
    left = ("config", "variant", "remarks")
    table = [names, [":--" if name in left else "--:" for name in names]]
    table += [[line[name] or "-" for name in names] for line in lines]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    note = (
        "Accuracies are means over seeds with their standard deviation. The interval is the 95% bootstrap "
        "interval of the mean over test reviews; it does not cover other seeds. The loss is on validation."
    )
    if "loss, minus the config's" in names:
        note += (
            " A variant is compared with its config on validation, seed by seed: the difference and its 95% "
            "interval by a paired bootstrap over reviews."
        )
    if "McNemar p" in names:
        note += " McNemar's exact test is against the baseline, the first row: the largest p over seeds."
    made = [each for row in rows for each in row.made.split("; ") if each]
    if made:
        note += " Made on: " + "; ".join(dict.fromkeys(made)) + "."
    return "\n\n".join(part for part in (about, text, note) if part) + "\n"


def _cells(row: Row) -> dict[str, str]:
    """The Markdown cells of a row, by column; "" for unknown."""
    p = row.mcnemar_p
    return {
        "config": row.config,
        "variant": row.variant,
        "seeds": str(row.seeds),
        "validation": _with_sd(row.validation_mean, row.validation_sd),
        "loss": _known("{:.4f}", row.validation_loss),
        "loss, minus the config's": _known(
            "{:+.4f} ({:+.4f} to {:+.4f})",
            *(row.loss_difference, row.loss_difference_low, row.loss_difference_high),
        ),
        "validation, minus the config's": _known(
            "{:+.4f} ({:+.4f} to {:+.4f})",
            *(row.accuracy_difference, row.accuracy_difference_low, row.accuracy_difference_high),
        ),
        "test": _with_sd(row.test_mean, row.test_sd),
        "95% interval": _known("{:.4f} to {:.4f}", row.test_low, row.test_high),
        "minus baseline": _known("{:+.4f}", row.minus_baseline),
        "McNemar p": "< 0.0001" if p is not None and p < 1e-4 else _known("{:.2g}", p),
        "wall-clock": _known(
            "{}", row.wall_clock_seconds and format_seconds(row.wall_clock_seconds)
        ),
        "parameters": _known("{:,}", row.parameters),
        "peak memory": _known("{:.2f} GB", _giga(row.peak_memory_bytes)),
        "on the device": _known("{:.2f} GB", _giga(row.peak_device_memory_bytes)),
        "remarks": " ".join(row.remarks.split()).replace("|", "\\|"),
    }


def _known(form: str, *values: float | str | None) -> str:
    return "" if None in values else form.format(*values)


def _with_sd(mean: float | None, sd: float | None) -> str:
    return _known("{:.4f}", mean) if sd is None else f"{mean:.4f} ± {sd:.4f}"


def _giga(value: int | None) -> float | None:
    return None if value is None else value / 1e9


def write_tables(folder: Path, rows: Sequence[Row], *, about: str) -> None:
    """Writes sweep.csv and sweep.md. Raises InputError if they cannot be written."""
    write_text(folder / "sweep.csv", to_csv(rows))
    write_text(folder / "sweep.md", to_markdown(rows, about=about))
