"""What attention buys as lengths grow (arXiv 1409.0473, Figure 2): trains with and without, and draws both.

    python -m experiments.lengths [--config=experiments/date_lines.py] [--seeds=0,1,2] [--out=runs/lengths]

--config    A config of `experiments.seq2seq`; `--config.x` overrides a field.
--seeds     The seeds to train with.
--out       The folder: attention-0, none-0, ... are the runs, lengths.md and lengths.png show their exact match
            and BLEU on test by the target's length (greedy decoding). Runs that have finished are read.

Exit codes: 0 done, 2 wrong flags or input, 66 data not found, 130 interrupted (rerun to resume).
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from bahdanau_jax.errors import InputError
from experiments.command import command, parse_flags
from experiments.config_file import ROOT, parse

# Name of a network: the field that makes it of the config.
_NETWORKS: dict[str, dict[str, int]] = {"attention": {}, "none": {"attention_units": 0}}
Results = Mapping[str, Sequence[Any]]  # by network, `by_length` of each seed


def table(results: Results) -> str:
    """A Markdown table: a row for each length, with exact match (mean and range over the seeds) and BLEU."""
    header = ["length", "pairs", *(f"{name}: {x}" for name in results for x in ("exact", "BLEU"))]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for rows in zip(*(zip(*seeds, strict=True) for seeds in results.values()), strict=True):
        first = rows[0][0]
        ends = sorted({first["shortest"], first["longest"]})
        cells = [" to ".join(map(str, ends)), str(sum(row["n"] for row in rows[0]))]
        for row in rows:
            exact = [seed["exact"] for seed in row]
            cells.append(f"{np.mean(exact):.3f} ({min(exact):.3f} to {max(exact):.3f})")
            cells.append(f"{np.mean([seed['bleu'] for seed in row]):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(path: Path, results: Results, trained: int) -> None:
    """Draws exact match by length, a line for each network and a dot for each seed.

    Args:
      path: a PNG.
      results: see `Results`.
      trained: the longest target trained on, which a dotted line marks.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    for name, seeds in results.items():
        lengths = [row["longest"] for row in seeds[0]]
        exact = np.array([[row["exact"] for row in rows] for rows in seeds])
        label = "with attention" if name == "attention" else "without"
        (line,) = axes.plot(lengths, exact.mean(axis=0), label=label)
        for one in exact:
            axes.plot(lengths, one, "o", color=line.get_color(), markersize=3)
    axes.axvline(trained, color="gray", linestyle=":", label="longest trained on")
    axes.set(xlabel="length of the target, in tokens", ylabel="exact match", ylim=(-0.03, 1.03))
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    from bahdanau_jax.training.seq2seq import train_seq2seq

    asked, rest = parse_flags(
        argv, config=True, seeds=["0", "1", "2"], out=str(ROOT / "runs/lengths")
    )
    for seed in asked.seeds:
        if not seed.isdecimal():
            raise flags.Error(f"--seeds has {seed!r}; expected integers, as in --seeds=0,1,2")
    if not any(argument.startswith(("--config=", "-config=")) for argument in rest):
        rest = [*rest, "--config=experiments/date_lines.py"]
    out, results = Path(asked.out).expanduser(), {name: [] for name in _NETWORKS}
    out.mkdir(parents=True, exist_ok=True)
    trained = 0
    for seed in asked.seeds:
        for name, fields in _NETWORKS.items():
            config, _ = parse(rest)
            config.seed = int(seed)
            config.model.update(fields)
            splits = train_seq2seq(config, out / f"{name}-{seed}")["splits"]
            results[name].append(splits["test"]["greedy"]["by_length"])
            trained = max(row["longest"] for row in splits["validation"]["greedy"]["by_length"])
    (out / "lengths.md").write_text(table(results), encoding="utf-8")
    draw(out / "lengths.png", results, trained)
    print(f"{table(results)}{out / 'lengths.png'}")


if __name__ == "__main__":
    sys.exit(main())
