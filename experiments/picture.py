"""Draws what a trained run attends to in one review: each word shaded by its weight.

    python -m experiments.picture --workdir=runs/imdb --out=docs/attention.png \\
        [--id=test/24430 | --review=TEXT]

--workdir   The run's folder, which is only read.
--out       The PNG to write.
--id        A review of the run's data set, by its id as in predictions.jsonl.
--review    Any text instead; needs no data set.

A dotted line is under words that the vocabulary lacks: the model cannot tell these from each other.
The weights of all words and of the start, which is not drawn, sum to 1.

Ends with 0 when done, 2 when something asked for is not right, 66 when the data is not found.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from bahdanau_jax.errors import InputError
from bahdanau_jax.predict import Prediction, Predictor, words_read
from bahdanau_jax.workdir import read_json
from experiments.command import command

DEFAULT_ID = "test/24430"  # of imdb_reviews: praise and blame in one review, and short

# Pixels; shown at about 3/4 of its size in a README.
WIDTH, MARGIN, LINE, DPI = 1160, 44, 45, 200
INK, GREY, BORDER = "#1f2328", "#636c76", "#d0d7de"
SHADES = ("#ffffff", "#fff1d6", "#ffd08a", "#ff9f45", "#f4702c")  # all light enough for black text


@dataclasses.dataclass(frozen=True)
class Piece:
    """A word, or what stands between words, where it is drawn: `x` pixels into line `line`."""

    text: str
    word: int | None  # index among the words drawn; None: punctuation
    x: float
    line: int
    width: float


def lay_out(
    text: str, spans: Sequence[tuple[int, int]], width_of: Callable[[str], float], line_width: float
) -> list[Piece]:
    """Breaks `text` into lines at its white space; what is longer than a line is cut.

    Args:
      text: as written.
      spans: where its words stand, in their order.
      width_of: of a string, in pixels.
      line_width: in pixels.

    Returns:
      the pieces, in reading order.
    """
    pieces: list[Piece] = []
    words = list(enumerate(spans))
    x, line, space = 0.0, 0, width_of("n n") - width_of("nn")
    for chunk in re.finditer(r"[^ \t\n]+", text):
        parts: list[tuple[str, int | None]] = []
        at = chunk.start()
        while words and words[0][1][1] <= chunk.end():
            i, (start, end) = words.pop(0)
            parts += [(text[at:start], None), (text[start:end], i)]
            at = end
        parts.append((text[at : chunk.end()], None))
        shown = [(printable(part), i) for part, i in parts if part]
        if x and x + sum(width_of(part) for part, _ in shown) > line_width:
            x, line = 0.0, line + 1
        for part, i in shown:
            while part:
                fitting = len(part)
                while fitting > 1 and x + width_of(part[:fitting]) > line_width:
                    fitting -= 1
                width = width_of(part[:fitting])
                if x and x + width > line_width:
                    x, line = 0.0, line + 1
                    continue
                pieces.append(Piece(part[:fitting], i, x, line, width))
                x, part = x + width, part[fitting:]
        x += space
    return pieces


def printable(text: str) -> str:
    """The text with blanks for what is not printable."""
    return "".join(c if c.isprintable() else " " for c in text)


def draw(path: Path, text: str, prediction: Prediction, *, headline: str, caption: str) -> None:
    """Writes the picture.

    Args:
      path: the PNG.
      text: the review as written, of which `prediction` is.
      prediction: its words and weights.
      headline, caption: the two lines under the text.

    Raises:
      InputError: `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import FancyBboxPatch

    spans, weights, known, low, top, reach, unread = words_read(text, prediction)
    if unread:
        text, spans = _cut(text, spans)
    even = 1 / max(len(prediction.words), 1)

    font = FontProperties(family="DejaVu Sans", size=8.4)
    renderer = FigureCanvasAgg(Figure(dpi=DPI)).get_renderer()
    pieces = lay_out(
        text,
        spans,
        lambda part: renderer.get_text_width_height_descent(part, font, ismath=False)[0],
        WIDTH - 2 * MARGIN,
    )
    lines = pieces[-1].line + 1 if pieces else 1
    height = MARGIN + lines * LINE + 112
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")

    def box(x, y, width, height, rounding, **style):
        shape = f"round,pad=0,rounding_size={rounding}"
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, **style))

    def write(x, y, text, size, **style):
        axes.text(x, y, text, fontsize=size, va="baseline", parse_math=False, **style)

    # A card of its own colour: the page around it may be light or dark.
    box(2, 2, WIDTH - 4, height - 4, 18, facecolor="white", edgecolor=BORDER, linewidth=0.8)
    shades = LinearSegmentedColormap.from_list("attention", SHADES)
    for piece in pieces:
        x, y = MARGIN + piece.x, MARGIN + piece.line * LINE + 27  # the baseline
        if piece.word is not None:
            shade = shades((weights[piece.word] - low) / reach)
            box(x - 2, y - 25, piece.width + 4, 34, 6, facecolor=shade, edgecolor="none")
            if not known[piece.word]:
                axes.plot([x, x + piece.width], [y + 7] * 2, ":", color=GREY, linewidth=1)
        axes.text(x, y, piece.text, color=INK, va="baseline", parse_math=False, fontproperties=font)

    foot = MARGIN + lines * LINE + 14
    axes.plot([MARGIN, WIDTH - MARGIN], [foot, foot], color=BORDER, linewidth=0.6)
    write(MARGIN, foot + 38, headline, 7.6, color=INK, weight="bold")
    if not known.all():
        caption += " · dotted: not in the vocabulary"
    write(MARGIN, foot + 68, caption, 6, color=GREY)
    # The scale: from this review's lowest weight to its highest, and where all being equal lies.
    left, right = WIDTH - MARGIN - 230, WIDTH - MARGIN - 30
    extent = (left, right, foot + 40, foot + 22)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=shades, extent=extent, aspect="auto", zorder=2)
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))  # which the image moved
    box(left, foot + 22, right - left, 18, 0, facecolor="none", edgecolor=BORDER, linewidth=0.6)
    write(left - 14, foot + 38, "attention weight", 6, color=GREY, ha="right")
    write(left, foot + 68, f"{low:.1%}", 6, color=GREY, ha="center")
    write(right, foot + 68, f"{top:.1%}", 6, color=GREY, ha="center")
    if low < even < top:
        middle = left + (right - left) * (even - low) / reach
        axes.plot([middle, middle], [foot + 22, foot + 44], color=GREY, linewidth=0.8, zorder=3)
        write(middle, foot + 17, f"even: {even:.1%}", 6, color=GREY, ha="center")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=DPI)
    except OSError as error:
        raise InputError(f"--out: cannot write {path}: {error.strerror or error}") from error


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """The text from the first of `spans` on, behind "… "."""
    moved = spans[0][0] - 2
    return "… " + text[spans[0][0] :], [(start - moved, end - moved) for start, end in spans]


def find_review(workdir: Path, name: str) -> tuple[str, int, tuple[str, ...]]:
    """(text, label, label names) of a review of the run's data set.

    Raises:
      InputError: no review has this id.
      DataNotFound: the data set is neither prepared nor reachable.
    """
    from bahdanau_jax.train import read_dataset

    file = workdir / "config.json"
    try:
        config = ConfigDict(read_json(file))
        dataset = read_dataset(config.data, config.seed)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file} names no data set: {error}") from error
    splits = (lambda: dataset.train, lambda: dataset.validation, dataset.read_test)
    for examples in (split() for split in splits):
        if name in examples.ids:
            i = list(examples.ids).index(name)
            return examples.texts[i], int(examples.labels[i]), dataset.label_names
    raise InputError(f"--id={name}: {dataset.name} has no such review; expected one as test/0")


def picture(workdir: Path, out: Path, *, name: str | None, review: str | None) -> None:
    """Draws a review: `review` itself, else the one that is called `name`."""
    predictor = Predictor.load(workdir)
    label_names, truth = predictor.label_names, ""
    if review is None:
        name = name or DEFAULT_ID
        review, label, label_names = find_review(workdir, name)
        truth = f" · true label: {label_names[label]}"
    [prediction] = predictor([review])
    predicted = label_names[int(prediction.probabilities.argmax())]
    of = f"review {name} · " if name else ""
    draw(
        out,
        review,
        prediction,
        headline=f"Predicted: {predicted} ({prediction.probability:.1%}){truth}",
        caption=f"{of}run {workdir.resolve().name}, step {predictor.step}",
    )


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked = flags.FlagValues()
    for flag in ("workdir", "out", "id", "review"):
        flags.DEFINE_string(flag, None, "", flag_values=asked)
    rest = asked(argv)[1:]
    if rest:
        raise flags.Error(f"unexpected argument {rest[0]!r}; expected --workdir and --out")
    for flag in ("workdir", "out"):
        if not asked[flag].value:
            raise flags.Error(f"--{flag} is missing")
    if asked.id is not None and asked.review is not None:
        raise flags.Error("--id and --review are both given; expected one")
    flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own and refuses unparsed ones
    workdir = Path(asked.workdir).expanduser()
    picture(workdir, Path(asked.out).expanduser(), name=asked.id, review=asked.review)


if __name__ == "__main__":
    sys.exit(main())
