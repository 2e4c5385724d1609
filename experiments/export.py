r"""Writes a trained run as one file that predicts without this project, or its weights alone.

    python -m experiments.export --workdir=runs/imdb --output=imdb.pyz
    python imdb.pyz "A dull first hour, then pure joy."      # needs jax and numpy
    python -m experiments.export --workdir=runs/imdb --output=imdb.safetensors

--workdir   The run's folder, which is only read.
--output    What ends with .pyz holds text rule, vocabulary, weights and the model as StableHLO (`jax.export`),
            for any batch size, on CPU, GPU and TPU; what ends with .safetensors the weights alone.

The file is tried before this ends: the largest difference to the run's own probabilities is printed. For
imdb.py's model that is 4.8e-07 over 67 texts, of 5.4 MB; a text then takes 4 s in an environment of jax and
numpy alone (two cores of an Intel Xeon that other work shared, 2026-11-25).

Ends with 0 when done, 2 when something asked for is not right.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from flax import nnx

from bahdanau_jax import environment
from bahdanau_jax.errors import InputError
from bahdanau_jax.export import export_model
from bahdanau_jax.exported import Exported
from bahdanau_jax.kept_reviews import read_reviews
from bahdanau_jax.predict import Predictor
from bahdanau_jax.weights import load_safetensors, save_safetensors
from experiments.command import command

TRIED = 64  # texts
TOLERANCE = 1e-5  # of a probability: between the scan and the CPU kernel
SOME_TEXTS = ["", "A dull first hour, then pure joy.", "word " * 1_000]


def export(workdir: Path, output: Path) -> str:
    """Writes the file and tries it; returns what it is like."""
    predictor = Predictor.load(workdir)
    texts = SOME_TEXTS + list(read_reviews(workdir).values())[:TRIED]
    want = np.array([x.probabilities for x in predictor(texts)])
    if output.suffix == ".pyz":
        export_model(workdir, output)
        found = [list(x["probabilities"].values()) for x in Exported(str(output))(texts)]
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


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked = flags.FlagValues()
    for flag in ("workdir", "output"):
        flags.DEFINE_string(flag, None, "", flag_values=asked)
    rest = asked(list(argv))[1:]
    if rest:
        raise flags.Error(f"unexpected argument {rest[0]!r}; expected --workdir and --output")
    for flag in ("workdir", "output"):
        if not asked[flag].value:
            raise flags.Error(f"--{flag} is missing")
    if not asked.output.endswith((".pyz", ".safetensors")):
        raise flags.Error(
            f"--output={asked.output}: expected a file that ends with .pyz or .safetensors"
        )
    flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own and refuses unparsed ones
    environment.use_compilation_cache()
    print(export(Path(asked.workdir).expanduser(), Path(asked.output).expanduser()))


if __name__ == "__main__":
    sys.exit(main())
