"""The tables that a run prints at its start and at its end."""

import io
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from flax import nnx
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from bahdanau_jax.errors import InputError, one_line
from bahdanau_jax.models.fixed import Fixed
from bahdanau_jax.runs.environment import hardware
from bahdanau_jax.runs.folder import RUN_FILES
from bahdanau_jax.runs.safe_files import read_json
from bahdanau_jax.token_ids import FIRST_WORD, UNKNOWN

PLAIN_WIDTH = 100  # columns in a file or a pipe
CLASSES_SHOWN = 8

Log = Callable[[str], None]


def make_console(file: IO[str] | None = None) -> Console:
    """A console for stdout, or for `file`. Outside a terminal it has 100 columns and no colours."""
    # Jupyter and FORCE_COLOR would put control codes into files, and Jupyter a progress bar into its outputs.
    plain = file is not None or Console().is_jupyter
    console = Console(
        file=file or sys.stdout,
        force_terminal=False if plain else None,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def format_seconds(seconds: float) -> str:
    """Seconds in at most two units: "8.4 s", "3 min 05 s", "1 h 02 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def coverage(encoded: Iterable[np.ndarray]) -> float | None:
    """The share of words that are in the vocabulary; None if there are no words.

    `encoded` holds integer arrays [length]. Padding and the start id do not count as words.
    """
    words = known = 0
    for ids in encoded:
        words += int(np.count_nonzero(ids == UNKNOWN) + np.count_nonzero(ids >= FIRST_WORD))
        known += int(np.count_nonzero(ids >= FIRST_WORD))
    return known / words if words else None


def data_figures(
    lengths: np.ndarray, *, max_length: int, coverage: float | None
) -> dict[str, int | float | None]:
    """The figures of one split, for `show_start`.

    Args:
      lengths: integers [reviews], the number of ids of each review with its start id, before any cut.
      max_length: ids that are kept.
      coverage: the share of words that are in the vocabulary, or None.

    Example:
      >>> data_figures(np.array([10, 600]), max_length=500, coverage=0.95)
      {'reviews': 2, 'mean_length': 305.0, 'longest': 600, 'cut_at': 500, 'share_cut': 0.5, 'coverage': 0.95}
    """
    lengths = np.asarray(lengths)
    some = lengths.size > 0
    return {
        "reviews": int(lengths.size),
        "mean_length": float(lengths.mean()) if some else None,
        "longest": int(lengths.max()) if some else None,
        "cut_at": max_length,
        "share_cut": float((lengths > max_length).mean()) if some else None,
        "coverage": coverage,
    }


def describe_classes(
    names: Sequence[str], counts: np.ndarray, weights: Sequence[float] | None = None
) -> str:
    """Each class's share of the training reviews, largest first, with the factor of its loss if there is one.

    Example:
      >>> describe_classes(("neg", "pos"), np.array([1, 3]), (2.0, 0.667))
      'pos 75.0% (times 0.67), neg 25.0% (times 2.00)'
    """
    order = np.argsort(-counts[: len(names)], kind="stable")  # classes with a name
    parts = [
        f"{names[i]} {counts[i] / counts.sum():.1%}"
        + (f" (times {weights[i]:.2f})" if weights else "")
        for i in order[:CLASSES_SHOWN]
    ]
    if len(order) > CLASSES_SHOWN:
        parts.append(
            f"and {len(order) - CLASSES_SHOWN} more, down to {counts[order[-1]]:,} reviews"
        )
    return ", ".join(parts)


def layers(model: nnx.Module) -> list[tuple[str, str, int]]:
    """Path, names with shapes, and number of values of each layer that holds parameters, in the model's order.

    Example:
      >>> layers(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      [('(model)', 'kernel[2,3] bias[3]', 9)]
    """
    order = {name: i for i, name in enumerate(vars(model))}
    flat = nnx.to_flat_state(nnx.state(model, (nnx.Param, Fixed)))
    # nnx sorts attributes by name; the order in which the model made them is that of the data.
    flat = sorted(flat, key=lambda item: order.get(str(item[0][0]), len(order)))
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for path, variable in flat:
        layer = ".".join(map(str, path[:-1])) or "(model)"
        found.setdefault(layer, []).append((str(path[-1]), tuple(variable.get_value().shape)))
    return [
        (
            layer,
            " ".join(name + _brackets(shape) for name, shape in sorted(parts, key=_large_first)),
            sum(math.prod(shape) for _, shape in parts),
        )
        for layer, parts in found.items()
    ]


def parameter_count(model: nnx.Module) -> int:
    """The number of parameters, fixed ones included: 9 for `nnx.Linear(2, 3, rngs=...)`."""
    return sum(count for _, _, count in layers(model))


def layer_table(model: nnx.Module) -> Table:
    """A table of any nnx module's layers with shapes, parameter counts and their total."""
    rows = layers(model)
    table = _table("layer", "parameters", "count", words=2, show_footer=True)
    for layer, parts, count in rows:
        table.add_row(layer, parts, f"{count:,}")
    table.columns[0].footer = "total"
    table.columns[2].footer = f"{sum(count for _, _, count in rows):,}"
    return table


def show_start(
    console: Console,
    *,
    devices: Sequence[str],
    settings: Mapping[str, str],
    data_figures: Mapping[str, Mapping[str, Any]],
    model: nnx.Module,
    log: Log | None = None,
) -> None:
    """Prints devices, processor, settings, the data's figures by split and the model's layers.

    Args:
      console: from `make_console`.
      devices: from `environment.devices`.
      settings: further lines, by name.
      data_figures: by split, from the function `data_figures`.
      model: any nnx module.
      log: takes the same as plain text.
    """
    table = _table("data", "reviews", "mean length", "longest", "cut", "words known")
    for split, figures in data_figures.items():
        table.add_row(
            split,
            _number(figures["reviews"], ",d"),
            _number(figures["mean_length"], ",.2f"),
            _number(figures["longest"], ",d"),
            _number(figures["share_cut"], ".1%") + f" at {figures['cut_at']}",
            _number(figures["coverage"], ".2%"),
        )
    processor = "{cpu}, {cores} cores".format(**hardware())
    pairs = {"devices": ", ".join(devices), "processor": processor} | dict(settings)
    _show(console, log, _pairs(pairs), table, layer_table(model))


def show_result(
    console: Console,
    result: Mapping[str, Any],
    *,
    already_finished: bool = False,
    log: Log | None = None,
) -> None:
    """Prints the figures of result.json and the files of the run.

    The row of the test split carries `result["test_description"]`, so that held-out reviews are never shown as
    a data set's own test split.

    Args:
      console: from `make_console`.
      result: as in result.json.
      already_finished: adds that nothing was trained now.
      log: takes the same as plain text.

    Raises:
      InputError: a figure is missing or not a number, as in a damaged result.json.
    """
    parts = []
    try:
        folder = Path(result["workdir"])
        if already_finished:
            when = f" on {result['date']}" if result.get("date") else ""
            line = f"already finished{when}; nothing was trained now"
            parts = [f"{line}\nto train again, choose a --workdir other than {folder}"]
        parts += _result(result, folder)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"the run folder's result.json is damaged ({type(error).__name__}: {one_line(error)}); if the "
            "checkpoints are whole, delete it and rerun the same command to write it again"
        ) from error
    _show(console, log, *parts)


def show_finished(console: Console, workdir: Path) -> Any | None:
    """Prints and returns the result of the finished run in a folder; returns None if it has not finished."""
    if not (workdir / "result.json").exists():
        return None
    result = read_json(workdir / "result.json")
    if isinstance(result, dict):  # otherwise show_result says that it is damaged
        result["workdir"] = str(workdir)  # the folder may have been moved
    show_result(console, result, already_finished=True)
    return result


def _result(result: Mapping[str, Any], folder: Path) -> list[RenderableType]:
    """The table of the splits, the figures of the run, and the files in its folder."""
    table = _table("split", "reviews", "loss", "accuracy", "95% interval")
    for split, figures in result["splits"].items():
        n, accuracy = figures["n"], figures["accuracy"]
        interval = figures.get("interval")  # train has none: the model has seen it
        interval = "{:.4f} to {:.4f}".format(*interval) if interval else ""
        label = f"test: {result['test_description']}" if split == "test" else split
        loss = _number(figures["loss"], ".4f")
        table.add_row(label, _number(n, ",d"), loss, _number(accuracy, ".4f"), interval)
    took = format_seconds(result["wall_clock_seconds"])
    if result.get("train_seconds") is not None:
        took += f" (training {format_seconds(result['train_seconds'])})"
    where = {
        name: what for name, what in RUN_FILES.items()
        if name == "result.json" or (folder / name).exists()
    }  # fmt: skip
    pairs = {"time": took}
    if result["steps"] is not None:  # None for what is not trained in steps, as a baseline
        epochs = _number(result.get("epochs"), "g")
        epochs += " epoch" if epochs == "1" else " epochs"
        pairs["steps"] = f"{result['steps']:,} in {epochs}, seed {result['seed']}"
    if result.get("perplexities"):  # of a language model
        pairs["perplexity"] = f"{_number(result['perplexities'][-1], '.1f')} on validation"
    pairs |= {"parameters": f"{result['parameters']:,}", "run folder": str(folder)}
    tables = [table] if result["splits"] else []
    return [*tables, _pairs(pairs), _pairs(where, indent="  ")]


def plain_text(renderable: RenderableType) -> str:
    """The text of `renderable` without control codes and trailing blanks."""
    text = io.StringIO()
    make_console(text).print(renderable, soft_wrap=isinstance(renderable, str))
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip("\n").splitlines())


def show_warnings(console: Console, notices: Iterable[str]) -> None:
    """Prints a warning for each notice, in a line of its own."""
    _show(console, None, *(f"warning: {notice}" for notice in notices))


def _show(console: Console, log: Log | None, *parts: RenderableType) -> None:
    for part in parts:
        # The terminal wraps text, not rich, which would break paths.
        console.print(part, soft_wrap=isinstance(part, str))
        if log is not None:
            log(plain_text(part))


def _table(*columns: str, words: int = 1, show_footer: bool = False) -> Table:
    """The first `words` columns hold words, which may wrap, the others numbers, which may not."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=show_footer, pad_edge=False)
    for i, name in enumerate(columns):
        if i < words:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    return table


def _pairs(pairs: Mapping[str, str], *, indent: str = "") -> str:
    width = max(map(len, pairs), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {value}" for name, value in pairs.items())


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _brackets(shape: tuple[int, ...]) -> str:
    # Without blanks, so that a narrow table breaks between parameters only.
    return "[" + ",".join(map(str, shape)) + "]"


def _large_first(part: tuple[str, tuple[int, ...]]) -> int:
    return -math.prod(part[1])
