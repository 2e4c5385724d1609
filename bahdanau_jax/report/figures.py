"""Draws the report's figures as SVG, which takes its colours and font from the page around it."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

# Placeholders: `_svg` replaces them with the page's --c1 to --c9, which differ in dark mode.
INK, MUTED, GRID, PAPER = "#000001", "#000002", "#000003", "#000004"
SERIES = ("#000005", "#000006", "#000007", "#000008", "#000009")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text, not outlines: it can be searched, read aloud and copied
    "text.parse_math": False,  # a label's name may contain a $
    "font.size": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_WIDTH, _HEIGHT = 4.7, 3.0  # inches; fits a phone's width at full size
_numbers = count(1)


@contextmanager
def _figure(width: float = _WIDTH, height: float = _HEIGHT) -> Iterator[tuple[Axes, list[str]]]:
    """Yields axes to draw on, and a list that holds the SVG after the block."""
    result: list[str] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        yield axes, result
        result.append(_svg(figure))


def _svg(figure: Figure) -> str:
    number = next(_numbers)
    nothing = {name: None for name in ("Date", "Creator", "Format", "Type")}
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": str(number)}):
        FigureCanvasSVG(figure).print_svg(file, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    width, height = (float(x) for x in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    head = f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{width * 1.25:.0f}px">'
    svg = re.sub(r"<svg[^>]*>", head, svg, count=1)
    svg = re.sub(r"#00000([1-9])\b", r"var(--c\1)", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    # Ids must differ between the figures of a page.
    svg = re.sub(r'\bid="', f'id="f{number}-', svg)
    return re.sub(r"(url\(#|href=\"#)", rf"\1f{number}-", svg)


def accuracies(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Draws accuracies as dots with intervals, one below the other.

    Args:
      rows: name, accuracy, low, high.
    """
    with _figure(height=0.9 + 0.32 * len(rows)) as (axes, result):
        for i, (_, accuracy, low, high) in enumerate(rows):
            axes.plot([low, high], [i, i], color=SERIES[0], linewidth=2, solid_capstyle="butt")
            axes.plot([accuracy], [i], "o", color=SERIES[0], markersize=6)
        axes.set_yticks(range(len(rows)), [shortened(row[0]) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("accuracy, with its 95% interval")
    return result[0]


def learning_curves(
    curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], ylabel: str
) -> str:
    """Draws one quantity by step: training as a thin line, validation with dots.

    Args:
      curves: by run, then "train" and "validation": (step, value).
      ylabel: label of the values.
    """
    with _figure() as (axes, result):
        for color, (name, splits) in zip(SERIES, curves.items(), strict=False):
            of = f"{shortened(name)}, " if len(curves) > 1 else ""
            train, validation = (
                np.array(splits[s]).reshape(-1, 2) for s in ("train", "validation")
            )
            axes.plot(*train.T, color=color, linewidth=1, alpha=0.55, label=f"{of}training")
            axes.plot(*validation.T, "o-", color=color, linewidth=2, label=f"{of}validation")
        axes.set_xlabel("step")
        axes.set_ylabel(ylabel)
        axes.legend(fontsize=8)
    return result[0]


def confusion(counts: np.ndarray, names: Sequence[str]) -> str:
    """Draws a confusion matrix of counts [true classes, predicted classes]."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n = len(names)
    side = min(max(2.6, 0.9 + 0.55 * n), 7.0)
    with _figure(width=max(side, 3.6), height=side) as (axes, result):
        for i, j in np.ndindex(n, n):
            color = SERIES[0] if i == j else SERIES[1]
            alpha = 0.6 * shares[i, j]
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=color, alpha=alpha))
            text = f"{counts[i, j]:,}"
            if n <= 4:
                text += f"\n{shares[i, j]:.1%}"
            axes.text(j, i, text, ha="center", va="center", fontsize=9 if n <= 8 else 6)
        axes.set_xticks(range(n), [shortened(name, 12) for name in names], rotation=90 * (n > 6))
        axes.set_yticks(range(n), [shortened(name, 12) for name in names])
        axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="predicted", ylabel="true")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return result[0]


def reliability(
    before: tuple[np.ndarray, np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray, np.ndarray],
    least: float,
) -> str:
    """Draws accuracy by confidence, before and after scaling.

    Args:
      before, after: as returned by `calibration.reliability`.
      least: the lowest possible confidence, 1 / classes.
    """
    with _figure() as (axes, result):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="calibrated")
        for color, marker, name, (confidence, accuracy, counts) in (
            (SERIES[1], "s", "as trained", before),
            (SERIES[0], "o", "with the temperature", after),
        ):
            axes.plot(confidence, accuracy, color=color, linewidth=1.2)
            sizes = 12 + 90 * counts / counts.sum()
            axes.scatter(confidence, accuracy, sizes, color=color, marker=marker, label=name)
        axes.set(xlim=(least - 0.02, 1.02), xlabel="probability of the predicted class")
        low = min(least, before[1].min(), after[1].min())
        axes.set(ylim=(low - 0.02, 1.03), ylabel="accuracy")
        axes.legend(fontsize=8, loc="upper left")
    return result[0]


def by_length(
    labels: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]]
) -> str:
    """Draws accuracy by review length.

    Args:
      labels: of the groups of lengths.
      series: by run, (accuracy, low, high) of each group.
    """
    with _figure() as (axes, result):
        for i, (color, (name, values)) in enumerate(zip(SERIES, series.items(), strict=False)):
            x = np.arange(len(labels)) + 0.12 * (i - (len(series) - 1) / 2)
            accuracy, low, high = np.array(values).T
            axes.vlines(x, low, high, color=color, linewidth=2)
            axes.plot(x, accuracy, "o-", color=color, linewidth=1, label=shortened(name))
        axes.set_xticks(range(len(labels)), labels)
        axes.set(xlabel="words in the review", ylabel="accuracy")
        if len(series) > 1:
            axes.legend(fontsize=8)
    return result[0]


def agreement(
    pairs: Sequence[tuple[str, str]], series: Mapping[str, Sequence[tuple[float, float, float]]]
) -> str:
    """Draws mean rank correlations with intervals, one pair of measures below the other.

    Args:
      pairs: names of the measures.
      series: by run, (mean, low, high) of each pair.
    """
    with _figure(height=0.7 + 0.42 * len(pairs)) as (axes, result):
        for i, (color, (name, values)) in enumerate(zip(SERIES, series.items(), strict=False)):
            y = np.arange(len(pairs)) + 0.2 * (i - (len(series) - 1) / 2)
            mean, low, high = np.array(values).T
            axes.hlines(y, low, high, color=color, linewidth=2)
            axes.plot(mean, y, "o", color=color, label=shortened(name))
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks(range(len(pairs)), [f"{a} –\n{b}" for a, b in pairs], fontsize=8)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("Kendall's τ (1: same order, 0: unrelated)")
        if len(series) > 1:
            axes.legend(fontsize=8)
    return result[0]


def erasure(
    shares: Sequence[float], series: Mapping[str, Sequence[tuple[float, float, float]]], title: str
) -> str:
    """Draws the fall of the probability by the share of words that is deleted or kept.

    Args:
      shares: shares of the words.
      series: by measure, (mean, low, high) for each share.
      title: label of the shares' axis.
    """
    with _figure() as (axes, result):
        markers = "osD^v"
        x = np.arange(len(shares))
        for color, marker, (name, values) in zip(SERIES, markers, series.items(), strict=False):
            mean, low, high = np.array(values).T
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(x, mean, f"{marker}-", color=color, linewidth=1.4, markersize=4, label=name)
        axes.set_xticks(x, [f"{share:.0%}" for share in shares])
        axes.axhline(0, color=MUTED, linewidth=1)
        axes.set(xlabel=title, ylabel="fall of the probability")
        axes.legend(fontsize=8)
    return result[0]


def shortened(name: str, most: int = 22) -> str:
    """Shortens a name to fit beside an axis: drops the middle, replaces unprintable characters.

    Example:
      >>> shortened("a_very_long_name_of_a_run", 9)
      'a_ve…_run'
    """
    name = "".join(c if c.isprintable() else " " for c in name)
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most - most // 2 - 1) :]}"
