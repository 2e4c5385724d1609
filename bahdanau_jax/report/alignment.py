"""Draws which source tokens each written token attends to: the picture of arXiv 1409.0473, Figure 3."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bahdanau_jax.errors import InputError

_INCHES = 0.2  # of a token
_LARGEST = 40.0  # inches of a side


def draw_alignment(
    path: str | Path, source: Sequence[str], written: Sequence[str], weights: np.ndarray
) -> None:
    """Draws attention weights as a matrix, a row for each written token; darker is more.

    Args:
      path: the picture, in a format that Matplotlib writes.
      source, written: the tokens.
      weights: [written, source].

    Raises:
      InputError: the picture cannot be written.
    """
    from matplotlib.figure import Figure

    height, width = (min(1 + _INCHES * n, _LARGEST) for n in weights.shape)
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(source)), [_shown(x) for x in source])
    axes.set_yticks(range(len(written)), [_shown(x) for x in written])
    if max(map(len, source), default=0) > 1:
        axes.tick_params(axis="x", rotation=90)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(xlabel="read", ylabel="written")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # a script that the font lacks is drawn as boxes
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(path)
    except (OSError, ValueError) as error:  # a format that Matplotlib does not know
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be written: {reason}") from error


def _shown(token: str) -> str:
    return "␣" if token == " " else token.replace("$", r"\$")
