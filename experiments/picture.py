"""Draws a run's attention in one review: each word is shaded by its weight.

    python -m experiments.picture --workdir=runs/imdb --out=docs/attention.png \\
        [--id=test/24430 | --review=TEXT]

--workdir   The run's folder. It is only read.
--out       The PNG to write.
--id        A review of the run's data set, by its id in predictions.jsonl.
--review    A text instead; the data set is not needed.

A dotted line marks words outside the vocabulary. The weights of all words and of the start symbol, which is
not drawn, sum to 1.

Exit codes: 0 done, 2 wrong flags or input, 66 data not found.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from bahdanau_jax.data.load import load_dataset
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Prediction, Predictor, words_read
from bahdanau_jax.runs.parse_config import upgrade
from bahdanau_jax.runs.safe_files import read_json
from experiments.command import REQUIRED, command, parse_flags

DEFAULT_ID = "test/24430"  # of imdb_reviews: short, with praise and blame

# Pixels. The README shows about 3/4 of this size.
WIDTH, MARGIN, LINE, DPI = 1160, 44, 45, 200
INK, GREY, BORDER = "#1f2328", "#636c76", "#d0d7de"
SHADES = ("#ffffff", "#fff1d6", "#ffd08a", "#ff9f45", "#f4702c")  # all light enough for black text


@dataclasses.dataclass(frozen=True)
class Piece:
    """A word, or text between words, drawn `x` pixels into line `line`."""

    text: str
    word: int | None  # index among the words; None: punctuation
    x: float
    line: int
    width: float


def lay_out(
    text: str, spans: Sequence[tuple[int, int]], width_of: Callable[[str], float], line_width: float
) -> list[Piece]:
    """Breaks `text` into lines at white space, and inside of a word that is longer than a line.

    Args:
      text: as written.
      spans: start and end of each word in it.
      width_of: width of a string, in pixels.
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
    """Replaces unprintable characters by blanks."""
    return "".join(c if c.isprintable() else " " for c in text)


def draw(path: Path, text: str, prediction: Prediction, *, headline: str, caption: str) -> None:
    """Writes the picture.

    Args:
      path: the PNG.
      text: the review as written.
      prediction: of this review.
      headline, caption: two lines under the text.

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

    # White card, since the page may be dark.
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
    # The scale: the review's lowest and highest weight, and the weight if all were equal.
    left, right = WIDTH - MARGIN - 230, WIDTH - MARGIN - 30
    extent = (left, right, foot + 40, foot + 22)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=shades, extent=extent, aspect="auto", zorder=2)
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))  # imshow moved them
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
    """Cuts off the text before the first span and puts "… " in its place."""
    moved = spans[0][0] - 2
    return "… " + text[spans[0][0] :], [(start - moved, end - moved) for start, end in spans]


def find_review(workdir: Path, name: str) -> tuple[str, int, tuple[str, ...]]:
    """Returns (text, label, label names) of a review of the run's data set.

    Raises:
      InputError: no review has this id.
      DataNotFound: the data set is neither prepared nor reachable.
    """
    file = workdir / "config.json"
    try:
        config = upgrade(read_json(file))
        dataset = load_dataset(config["data"], seed=config["seed"])
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file} names no data set: {error}") from error
    for split in (lambda: dataset.train, lambda: dataset.validation, dataset.read_test):
        examples = split()
        if name in examples.ids:
            i = list(examples.ids).index(name)
            return examples.texts[i], int(examples.labels[i]), dataset.label_names
    raise InputError(f"--id={name}: {dataset.name} has no such review; expected an id like test/0")


def picture(workdir: Path, out: Path, *, name: str | None, review: str | None) -> None:
    """Draws `review`, or the review with the id `name`."""
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
    asked, _ = parse_flags(argv, workdir=REQUIRED, out=REQUIRED, id=None, review=None)
    if asked.id is not None and asked.review is not None:
        raise flags.Error("--id and --review are both given; expected one")
    workdir = Path(asked.workdir).expanduser()
    picture(workdir, Path(asked.out).expanduser(), name=asked.id, review=asked.review)


if __name__ == "__main__":
    sys.exit(main())
