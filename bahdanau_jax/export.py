"""A trained run in one file: text rule, vocabulary, weights and the model as StableHLO (`jax.export`).

The file is a zip that Python runs (PEP 441). It holds `exported.py` and the modules that this needs, so it
predicts on a machine with jax and numpy and without this package. Among them is the package flatbuffers, in
which jax reads what it exported and which does not come with it.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax import export

from bahdanau_jax.errors import InputError
from bahdanau_jax.objective import probabilities
from bahdanau_jax.predict import Predictor
from bahdanau_jax.weights import weights_of

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_MODULES = ("errors.py", "text.py", "exported.py")  # of this package, which the file carries
_MAIN = """import sys

from bahdanau_jax.exported import main

main(sys.path[0], sys.argv[1:])
"""


def export_model(workdir: str | Path, file: str | Path) -> None:
    """Writes the model of a run's newest checkpoint, with the run's temperature, as one file.

    Batch size and length stay open, and the platform is any of `PLATFORMS`: the recurrence is the scan, as
    the CPU kernel is no part of StableHLO.

    Raises:
      InputError: the folder holds no whole run, or the file cannot be written.

    Example::

        export_model("runs/imdb", "imdb.pyz")    # then: python imdb.pyz "Wonderful."
    """
    workdir = Path(workdir).expanduser()
    predictor = Predictor.load(workdir)
    model = nnx.merge(predictor.graphdef, predictor.state)
    about = {
        "run": workdir.resolve().name,
        "step": predictor.step,
        "label_names": list(predictor.label_names),
        "bucket_lengths": list(predictor.bucket_lengths),
        "temperature": predictor.temperature,
    }
    weights = weights_of(model)
    arrays = io.BytesIO()
    np.savez(arrays, **weights)  # pyright: ignore[reportArgumentType]
    parts: dict[str, bytes] = {
        "__main__.py": _MAIN.encode(),
        "bahdanau_jax/__init__.py": b"",
        **_modules("bahdanau_jax", _MODULES),
        **_modules("flatbuffers"),
        "about.json": json.dumps(about, indent=2).encode(),
        "vocabulary.json": (workdir / "vocabulary.json").read_bytes(),
        "model.stablehlo": bytes(stablehlo(model, predictor.temperature)),
        "weights.npz": arrays.getvalue(),
    }
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from error


def _modules(package: str, names: Sequence[str] = ()) -> dict[str, bytes]:
    """The source of some modules of a package, or of all of them."""
    files = resources.files(package).iterdir()
    return {
        f"{package}/{file.name}": file.read_bytes()
        for file in files
        if (file.name in names if names else file.name.endswith(".py"))
    }


def stablehlo(model: nnx.Module, temperature: float = 1.0) -> bytearray:
    """The model as a function of its weights by name and ids [batch, time], serialised by `jax.export`.

    It gives probabilities [batch, classes] and attention weights [batch, time]; see `exported.Exported`.
    """
    for _, part in nnx.iter_modules(model):
        if hasattr(part, "implementation"):
            setattr(part, "implementation", "scan")  # noqa: B010
    graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
    names = list(weights_of(model))  # in the order of the leaves
    structure = jax.tree.structure(nnx.to_pure_dict(parameters))

    @jax.jit
    def call(weights, ids):
        pure = jax.tree.unflatten(structure, [weights[name] for name in names])
        state = jax.tree.map(lambda x: x, parameters)
        nnx.replace_by_pure_dict(state, pure)
        logits, attention = nnx.merge(graphdef, state, rest)(ids)
        return probabilities(logits / temperature), attention

    batch, time = export.symbolic_shape("batch, time")
    ids = jax.ShapeDtypeStruct((batch, time), np.int32)
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights_of(model))
    return export.export(call, platforms=PLATFORMS)(weights, ids).serialize()
