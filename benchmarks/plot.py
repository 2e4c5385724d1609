"""The benchmark's results as tables for the terminal and as one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import CONTENDERS, OURS, PEERS
from benchmarks.records import HUGE, PLAIN, Record, against_fastest, ratios

TITLES = {
    "step": "Training step at equal padding",
    "epoch": "Training epoch, per review",
    "predict": "Prediction, per review",
    "difference": "Difference of a predicted probability from ours",
    "memory": "Peak memory of training",
    "start to first step": "Start to first step",
    "compilation": "Compilation of a training step",
    "compilation of all shapes": "Compilation of all our shapes",
    "roofline": "Share of this machine's matrix-product rate",
    "matmul": "This machine's matrix-product rate",
    "tile roofline": "Share of the rate of the CPU kernel's register tile",
    "tile": "The rate of the CPU kernel's register tile",
    "length": "Layer alone: length",
    "batch": "Layer alone: batch",
    "hidden": "Layer alone: hidden size",
}
SHOWN = (*OURS, *PEERS, "onnxruntime-int8", "matmul")  # in the bars; others would crowd them
COMPARED = ("step", "epoch", "predict", "memory", "start to first step")


def show_tables(console: Console, records: Sequence[Record]) -> None:
    """Prints a table per section, then how ours compares with the best peer."""
    for section in dict.fromkeys(x.section for x in records):
        rows = [x for x in records if x.section == section]
        table = _section_table if rows[0].size is None else _layer_table
        console.print(table(section, rows))
    for section in ("step", "epoch", "predict", "memory"):
        for ratio in against_fastest(records, section):
            fewer = "as small" if section == "memory" else "as fast"
            console.print(
                f"{TITLES[section]}, {CONTENDERS[ratio.ours].label}: {ratio.median:.2f} times {fewer} as the"
                f" best peer, {CONTENDERS[ratio.peer].label} (ours: {ratio.ours_setting},"
                f" peer: {ratio.peers_setting})"
            )


def _section_table(section: str, rows: Sequence[Record]) -> Table:
    note = next((x.note for x in rows if x.note), "")
    table = Table(title=f"{TITLES[section]} ({note})" if note else TITLES[section])
    table.add_column("", no_wrap=True)
    table.add_column("setting", no_wrap=True)
    found = ratios(rows, section) if section in COMPARED else []
    columns = [(False, "over ours")] if found else []
    if any(ratio.ours_setting != ratio.peers_setting for ratio in found):
        columns.append((True, f"over ours with {HUGE}"))
    for name in (rows[0].unit, "min-max", "rounds"):
        table.add_column(name, justify="right", no_wrap=True)
    for _, name in columns:
        table.add_column(name, justify="right", min_width=16)
    for x in rows:
        cells = {}
        for ratio in found:
            if (ratio.peer, ratio.peers_setting) == (x.contender, x.peers_setting):
                span = f" ({_span(ratio.rounds)})" if len(ratio.rounds) > 1 else ""
                cells[ratio.ours_setting != ratio.peers_setting] = f"{ratio.median:.2f}{span}"
        figures = (_short(x.median), _span(x.rounds), str(len(x.rounds)))
        setting = x.setting
        if x.setting != x.peers_setting:
            setting += " (same rounds)"
        table.add_row(
            CONTENDERS[x.contender].label,
            setting,
            *figures,
            *(cells.get(mixed, "") for mixed, _ in columns),
        )
    return table


def _layer_table(section: str, rows: Sequence[Record]) -> Table:
    table = Table(
        title=f"{TITLES[section]} ({rows[0].note}; {rows[0].setting}; seconds, (over ours))"
    )
    contenders = list(dict.fromkeys(x.contender for x in rows))
    table.add_column(section, justify="right")
    for name in contenders:
        table.add_column(CONTENDERS[name].label, justify="right")
    for size in dict.fromkeys(x.size for x in rows):
        cells = {x.contender: _short(x.median) for x in rows if x.size == size}
        for ratio in ratios(rows, section, size):
            cells[ratio.peer] += f" ({ratio.median:.2f})"
        table.add_row(str(size), *(cells.get(name, "-") for name in contenders))
    return table


def _short(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _span(values: Sequence[float]) -> str:
    return f"{_short(min(values))}-{_short(max(values))}" if len(values) > 1 else "-"


def draw(path: Path, about: dict[str, Any], records: Sequence[Record]) -> None:
    """Draws bars for the network and log-log lines for the layer alone."""
    bars, lines = [*COMPARED, "roofline"], ["length", "batch", "hidden"]
    panels = [name for name in bars + lines if any(x.section == name for x in records)]
    if not panels:
        return
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.9 * height), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.axis("off")
    for name, axis in zip(panels, axes, strict=False):
        rows = [x for x in records if x.section == name]
        (_bars if name in bars else _lines)(axis, rows)
        axis.set_title(TITLES[name], fontsize=11)
    machine = about["machine"]
    figure.suptitle(
        f"{machine['cpu']}, {machine['cores']} cores, {about['date'][:10]}"
        f" (bars: medians, whiskers: min to max)\n{about['data']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _bars(axis: Axes, rows: Sequence[Record]) -> None:
    """A bar per contender and setting, from rounds in which all had the same setting."""
    rows = [
        x
        for x in rows
        if x.setting == x.peers_setting
        and (x.contender == "ours" or CONTENDERS[x.contender].install)
    ]
    names = list(dict.fromkeys(x.contender for x in rows))
    settings = [s for s in (PLAIN, HUGE) if any(x.setting == s for x in rows)]
    thickness = 0.8 / len(settings)
    for j, setting in enumerate(settings):
        for x in rows:
            if x.setting != setting:
                continue
            y = names.index(x.contender) + (j - (len(settings) - 1) / 2) * thickness
            error = [[x.median - min(x.rounds)], [max(x.rounds) - x.median]]
            axis.barh(
                y, x.median, thickness * 0.92, xerr=error, color=CONTENDERS[x.contender].colour,
                alpha=0.5 if setting == PLAIN and len(settings) == 2 else 1,
                error_kw={"linewidth": 1, "ecolor": "#333333"},
            )  # fmt: skip
            text = f" {x.median:.1%}" if x.section.endswith("roofline") else f" {_short(x.median)}"
            axis.text(max(x.rounds), y, text, va="center", fontsize=8)
    axis.set_yticks(range(len(names)), [CONTENDERS[name].label for name in names], fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_xlim(left=0)
    label = rows[0].unit if rows else ""
    if len(settings) == 2:
        label += f" (pale: {PLAIN}, full: {HUGE})"
    elif settings:
        label += f" ({settings[0]})"
    axis.set_xlabel(label, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _lines(axis: Axes, rows: Sequence[Record]) -> None:
    """Seconds against size, both logarithmic."""
    for name in dict.fromkeys(x.contender for x in rows):
        own = [x for x in rows if x.contender == name]
        sizes = [x.size or 0 for x in own]
        axis.plot(
            sizes, [x.median for x in own], "o-", color=CONTENDERS[name].colour, label=CONTENDERS[name].label,
            linewidth=2.4 if name == "ours" else 1.4, markersize=4,
        )  # fmt: skip
        low, high = [min(x.rounds) for x in own], [max(x.rounds) for x in own]
        axis.fill_between(sizes, low, high, color=CONTENDERS[name].colour, alpha=0.15, linewidth=0)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    ticks = sorted({x.size for x in rows if x.size is not None})
    axis.set_xticks(ticks, [str(size) for size in ticks])
    axis.minorticks_off()
    axis.set_xlabel(f"{rows[0].section} ({rows[0].note})", fontsize=9)
    axis.set_ylabel(f"s, forward and backward ({rows[0].setting})", fontsize=9)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
