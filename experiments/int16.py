"""Compares int16 products with float32 on a run's validation texts, and keeps the result in its folder.

    python -m experiments.int16 --workdir=runs/imdb
    python -m experiments.predict --workdir=runs/imdb --products=int16 --input=reviews.csv

--workdir   The run's folder. Its config says where the validation texts come from.
--limit     The largest loss of accuracy. Default: 0.0005.
--split     validation (default), or test: compares on the test split and keeps nothing.

Prints the accuracy of both and by how much probabilities differ. If int16 loses more than the limit, nothing is
written. Otherwise the folder gets int16.json, and predictions with int16 are open. They need a CPU.

Exit codes: 0 done, 2 wrong flags or input, int16 loses more, or cannot be had here.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from bahdanau_jax.data.load import load_dataset
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.int16 import FILE, compare, keep
from bahdanau_jax.evaluation.predictor import Predictor, read_config
from bahdanau_jax.runs import environment
from experiments.command import REQUIRED, command, parse_flags


def check(workdir: Path, limit: float, split: str = "validation") -> str:
    """Compares, writes int16.json if on validation, and returns a line that describes the comparison."""
    predictor = Predictor.load(workdir)
    rounded = predictor.with_products("int16")
    config = read_config(workdir)
    dataset = load_dataset(config.data.model_dump(), seed=config.seed)
    if dataset.label_names != predictor.label_names:
        raise InputError(
            f"{workdir}: its data has the labels {', '.join(dataset.label_names)}; expected those of the run, "
            f"{', '.join(predictor.label_names)}"
        )
    texts = dataset.validation if split == "validation" else dataset.read_test()
    ids = predictor.vocabulary.encode_all(
        list(texts.texts), max_length=predictor.bucket_lengths[-1]
    )
    float32, int16 = predictor.predict_ids(ids)[0], rounded.predict_ids(ids)[0]
    result = compare(predictor.step, float32, int16, np.asarray(texts.labels))
    line = (
        f"{result.texts:,} {split} texts: accuracy {result.accuracy_float32:.4f} with float32, "
        f"{result.accuracy_int16:.4f} with int16; {result.other_labels} labels differ, probabilities by up to "
        f"{result.largest_difference:.1e}"
    )
    if result.accuracy_float32 - result.accuracy_int16 > limit:
        raise InputError(f"{line}; expected a loss of at most {limit}")
    if split == "test":
        return line
    keep(workdir, result)
    return f"{line}; kept in {workdir / FILE}"


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, _ = parse_flags(argv, workdir=REQUIRED, limit="0.0005", split=("validation", "test"))
    try:
        limit = float(asked.limit)
    except ValueError as error:
        raise flags.Error(f"--limit={asked.limit}: expected a number") from error
    environment.use_compilation_cache()
    print(check(Path(asked.workdir).expanduser(), limit, asked.split))


if __name__ == "__main__":
    sys.exit(main())
