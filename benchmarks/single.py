"""One review, alone: seconds from a cold process to the answer, and milliseconds of a later one.

    python -m benchmarks.single --workdir=runs/imdb [--rounds=5] [--words=230]

--workdir  A run's folder. It is exported to .pyz and ONNX first.
--words    Length of the review.

Rows: the command `experiments.predict`, `Predictor` in Python, the `.pyz`, ONNX Runtime, and Keras on JAX with
the notebook's network (fresh weights), each in a process of its own that starts Python. They take turns;
figures are medians. Ours and the `.pyz` start with the text, the others with its ids. "Later": the median of
100 more answers in the same process. The caches of files and compiled programs are warm.

Exit codes: 0 done, 2 wrong flags or input.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bahdanau_jax.data.movie_reviews import load_embedded
from bahdanau_jax.evaluation.predictor import Predictor
from experiments.command import REQUIRED, command, parse_flags

# Each reads JSON {text, ids, workdir, onnx} from its argument, and prints the later answers' milliseconds.
TIMES = """
import json, statistics, sys, time
given = json.loads(sys.argv[1])
def later(answer, times=100):
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(seconds)
"""
PREDICTOR = """
from bahdanau_jax import Predictor
from bahdanau_jax.runs.environment import use_compilation_cache
use_compilation_cache()
predictor = Predictor.load(given["workdir"])
answer = lambda: predictor([given["text"]])
"""
ONNXRUNTIME = """
import numpy, onnxruntime
session = onnxruntime.InferenceSession(given["onnx"], providers=["CPUExecutionProvider"])
ids = numpy.array([given["ids"]])
answer = lambda: session.run(["probabilities"], {"ids": ids})
"""
KERAS = """
import numpy
from benchmarks.contenders.keras import make_model
from benchmarks.network import Sizes
model = make_model(Sizes())
ids = numpy.array([given["ids"]], numpy.int32)
answer = lambda: numpy.asarray(model.predict_on_batch(ids))
"""
LATER = """
answer()
print("answered", flush=True)
print(later(answer), flush=True)
"""


def run(arguments: Sequence[str], env: dict[str, str]) -> tuple[float, float | None]:
    """Starts Python; returns seconds to its first line, and the number in its second one if there is one."""
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        seconds = time.perf_counter() - begun
        rest = process.stdout.read().split()
    if process.returncode or not first:
        raise RuntimeError(f"{arguments[:3]} ended with exit code {process.returncode}")
    return seconds, float(rest[0]) if first == "answered\n" else None


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    defaults: dict[str, Any] = dict(rounds=5, words=230)
    asked, _ = parse_flags(argv, workdir=REQUIRED, **defaults)
    workdir = str(Path(asked.workdir).expanduser())
    texts = " ".join(load_embedded(validation_size=1_000).train.texts[:20]).split()
    text = " ".join(texts[: asked.words])
    predictor = Predictor.load(workdir)
    (ids,) = predictor.vocabulary.encode_all([text], max_length=predictor.bucket_lengths[-1])
    env = dict(os.environ, KERAS_BACKEND="jax")
    with tempfile.TemporaryDirectory() as folder:
        exported = [f"{folder}/run.{kind}" for kind in ("pyz", "onnx")]
        for file in exported:
            export = ["-m", "experiments.export", f"--workdir={workdir}", f"--output={file}"]
            subprocess.run([sys.executable, *export], check=True, stdout=subprocess.DEVNULL)
        given = json.dumps(
            dict(text=text, ids=[int(n) for n in ids], workdir=workdir, onnx=exported[1])
        )
        rows = {
            "experiments.predict": ["-m", "experiments.predict", f"--workdir={workdir}", text],
            "Predictor": ["-c", TIMES + PREDICTOR + LATER, given],
            ".pyz": [exported[0], text],
            "ONNX Runtime": ["-c", TIMES + ONNXRUNTIME + LATER, given],
            "Keras on JAX": ["-c", TIMES + KERAS + LATER, given],
        }
        figures: dict[str, list[tuple[float, float | None]]] = {name: [] for name in rows}
        for _ in range(asked.rounds + 1):  # the first fills the caches
            for name, arguments in rows.items():
                figures[name].append(run(arguments, env))
    for name, found in figures.items():
        seconds = [first for first, _ in found[1:]]
        line = f"{name:<20} {median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
        later = [ms for _, ms in found[1:] if ms is not None]
        if later:
            line += f"   later {median(later):7.2f} ms ({min(later):.2f} to {max(later):.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
