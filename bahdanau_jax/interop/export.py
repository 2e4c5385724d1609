"""Writes a trained run as one file: text rule, vocabulary, weights, and the model as StableHLO (`jax.export`).

The file is a zip that Python runs (PEP 441). It predicts on a machine that has jax and numpy, without this
package. It also carries flatbuffers, which `jax.export` reads with and jax does not install.
"""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import export

from bahdanau_jax.data.tokenizer import BUILT_IN
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Predictor
from bahdanau_jax.interop.safetensors import weights_of
from bahdanau_jax.models.probabilities import probabilities
from bahdanau_jax.runs.safe_files import write_bytes

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
# All of this package that `standalone.py` imports, and therefore all that the file carries.
MODULES = (
    "errors.py",
    "token_ids.py",
    "data/normalize.py",
    "data/subwords.py",
    "data/text_lines.py",
    "data/tokenizer.py",
    "interop/standalone.py",
)
_MAIN = """import sys

from bahdanau_jax.interop.standalone import main

main(sys.path[0], sys.argv[1:])
"""
# Run with -I -S: no PYTHONPATH, no .pth files (editable installs are .pth files), no current folder.
_ALONE = """import os, runpy, sys
sys.path += sys.argv[1].split(os.pathsep)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def export_model(workdir: str | Path, file: str | Path) -> None:
    """Writes the model of a run's newest checkpoint, with the run's temperature, as one file.

    Batch size and length stay open, and the platform is any of `PLATFORMS`: the recurrence is the scan,
    because StableHLO cannot hold the CPU kernel.

    Raises:
      InputError: the folder holds no complete run, its tokenizer is your own, or the file cannot be written.

    Example::

        export_model("runs/imdb", "imdb.pyz")    # then: python imdb.pyz "Wonderful."
    """
    workdir = Path(workdir).expanduser()
    predictor = Predictor.load(workdir)
    name = predictor.vocabulary.name
    if name not in BUILT_IN:
        raise InputError(
            f"config.tokenizer.name is {name!r}; a .pyz carries {', '.join(map(repr, BUILT_IN))} and no "
            "tokenizer of your own"
        )
    model = nnx.merge(predictor.graphdef, predictor.state)
    about = {
        "run": workdir.resolve().name,
        "jax": jax.__version__,
        "step": predictor.step,
        "label_names": list(predictor.label_names),
        "bucket_lengths": list(predictor.bucket_lengths),
        "temperature": predictor.temperature,
    }
    arrays: Any = weights_of(model)
    weights = io.BytesIO()
    np.savez(weights, **arrays)
    package, flatbuffers = (resources.files(name) for name in ("bahdanau_jax", "flatbuffers"))
    parts: dict[str, bytes] = {
        "__main__.py": _MAIN.encode(),
        **{f"bahdanau_jax/{x}__init__.py": b"" for x in ("", "data/", "interop/")},
        **{f"bahdanau_jax/{name}": (package / name).read_bytes() for name in MODULES},
        **{
            f"flatbuffers/{part.name}": part.read_bytes()
            for part in flatbuffers.iterdir()
            if part.name.endswith(".py")
        },
        "about.json": json.dumps(about, indent=2).encode(),
        "vocabulary.json": (workdir / "vocabulary.json").read_bytes(),
        "model.stablehlo": bytes(stablehlo(model, predictor.temperature)),
        "weights.npz": weights.getvalue(),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    write_bytes(file, content.getvalue())


def stablehlo(model: nnx.Module, temperature: float = 1.0) -> bytearray:
    """Serialises the model as a function of its weights by name and ids [batch, time], with `jax.export`.

    It returns probabilities [batch, classes] and attention weights [batch, time]; see `standalone.Exported`.
    """
    for _, part in nnx.iter_modules(model):
        if hasattr(part, "implementation"):
            setattr(part, "implementation", "scan")  # noqa: B010
    graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
    arrays = weights_of(model)  # in the order of the leaves
    structure = jax.tree.structure(nnx.to_pure_dict(parameters))

    @jax.jit
    def call(weights, ids):
        pure = jax.tree.unflatten(structure, [weights[name] for name in arrays])
        state = jax.tree.map(lambda x: x, parameters)
        nnx.replace_by_pure_dict(state, pure)
        logits, attention = nnx.merge(graphdef, state, rest)(ids)
        return probabilities(logits / temperature), attention

    batch, time = export.symbolic_shape("batch, time")
    ids = jax.ShapeDtypeStruct((batch, time), np.int32)
    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    return export.export(call, platforms=PLATFORMS)(weights, ids).serialize()


def predict_alone(file: str | Path, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Predicts with an exported file in another process, which cannot import this project's checkout.

    The process runs on the CPU: another accelerator process holds its memory.

    Args:
      file: written by `export_model`.
      texts: without line breaks.

    Raises:
      InputError: the file does not run, or prints something else than one prediction for each text.
    """
    installed = [x for x in sys.path if Path(x).name in ("site-packages", "dist-packages")]
    run = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _ALONE,
            os.pathsep.join(installed),
            os.path.abspath(file),
        ],
        input="".join(f"{text}\n" for text in texts),
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    lines = run.stdout.splitlines()
    if run.returncode or len(lines) != len(texts):
        said = (run.stderr.strip().splitlines() or [f"{len(lines)} predictions"])[-1]
        raise InputError(
            f"{file} does not run without this project: {said}; expected {len(texts)} predictions"
        )
    return [json.loads(line) for line in lines]
