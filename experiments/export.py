r"""Exports a trained run as one file that predicts without this project, or its weights alone.

    python -m experiments.export --workdir=runs/imdb --output=imdb.pyz
    python imdb.pyz "A dull first hour, then pure joy."      # needs jax and numpy
    python -m experiments.export --workdir=runs/imdb --output=imdb.safetensors

--workdir   The run's folder, which is only read.
--output    A .pyz holds the text rule, the vocabulary, the weights and the model as StableHLO (`jax.export`),
            for any batch size, on CPU, GPU and TPU. A .safetensors holds the weights alone.

The command tries the file before it ends, a .pyz in a process that cannot import this project, and prints
the largest difference from the run's own probabilities. For imdb.py's model that is 4.8e-07 over 67 texts,
and the file takes 5.4 MB; predicting one text takes 4 s with only jax and numpy installed (two shared cores
of an Intel Xeon, 2026-11-25).

Exit code: 0 when done, 2 when something asked for is wrong.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags
from flax import nnx

from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Predictor
from bahdanau_jax.interop.export import export_model, predict_alone
from bahdanau_jax.interop.safetensors import load_safetensors, save_safetensors
from bahdanau_jax.runs import environment
from bahdanau_jax.runs.predictions import read_reviews
from experiments.command import REQUIRED, command, parse_flags

TRIED = 64  # texts
TOLERANCE = 1e-5  # of a probability: between the scan and the CPU kernel
SOME_TEXTS = ["", "A dull first hour, then pure joy.", "word " * 1_000]


def export(workdir: Path, output: Path) -> str:
    """Writes the file and tries it; returns a line that describes it."""
    predictor = Predictor.load(workdir)
    texts = [_one_line(x) for x in [*SOME_TEXTS, *list(read_reviews(workdir).values())[:TRIED]]]
    with jax.default_matmul_precision("highest"):  # a GPU's own default is coarser than TOLERANCE
        want = np.array([x.probabilities for x in predictor(texts)])
        if output.suffix == ".pyz":
            export_model(workdir, output)
            found = [list(x["probabilities"].values()) for x in predict_alone(output, texts)]
        else:
            model = nnx.merge(predictor.graphdef, predictor.state)
            save_safetensors(
                model, output, {"run": workdir.resolve().name, "step": str(predictor.step)}
            )
            parameters = nnx.state(model, nnx.Param)
            nnx.update(model, nnx.map_state(lambda _, x: x * 0, parameters))
            load_safetensors(model, output)
            predictor.state = nnx.split(model)[1]
            found = [x.probabilities for x in predictor(texts)]
    difference = float(np.abs(np.array(found) - want).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"{output} gives other probabilities than {workdir}, by up to {difference:.1e}; "
            f"expected at most {TOLERANCE}"
        )
    size = output.stat().st_size / 2**20
    return f"{output}: {size:.1f} MB; largest difference over {len(texts)} texts {difference:.1e}"


def _one_line(text: str) -> str:
    """The text as one line of valid UTF-8: a .pyz reads one text a line."""
    return " ".join(text.split()).encode("utf-8", "replace").decode()


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, _ = parse_flags(argv, workdir=REQUIRED, output=REQUIRED)
    if not asked.output.endswith((".pyz", ".safetensors")):
        raise flags.Error(
            f"--output={asked.output}: expected a file that ends with .pyz or .safetensors"
        )
    environment.use_compilation_cache()
    print(export(Path(asked.workdir).expanduser(), Path(asked.output).expanduser()))


if __name__ == "__main__":
    sys.exit(main())
