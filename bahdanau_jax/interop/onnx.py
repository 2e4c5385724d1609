"""Writes a trained run as ONNX, for ONNX Runtime and other software without Python or JAX.

The file takes `ids`, int64 [batch, time] of any batch size and length: 1, then the ids of a text's words, and 0
wherever there is padding. It returns `probabilities`, float32 [batch, classes], calibrated by the run's
temperature, and the attention `weights`, float32 [batch, time].

Its metadata holds what turns a text into ids: `words` (a JSON list; `words[i]` has the id 4 + i, any other word
the id 2), `tokenizer` (its name), `max_length` (a longer text is cut to its last ids) and the `labels`.
For "words" and "marks" the file's doc_string describes how a text is split. For the others, use the
classes of `data/tokenizer.py`: what a subword tokenizer has learned stands in `tokenizer_options`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from bahdanau_jax.evaluation.predictor import Predictor, padded_batches
from bahdanau_jax.interop.onnx_graph import to_onnx
from bahdanau_jax.runs.safe_files import write_bytes
from bahdanau_jax.token_ids import FIRST_WORD, PAD, START, UNKNOWN

_RULES = {
    "words": r"""lower-case; each of !"#$%&()*+,-./:;<=>?@[\]^_`{|}~, tab, LF and CR becomes a space; """
    "split at spaces",
    "marks": r"'<br />' becomes a space; the words are the matches of \w+(?:['’-]\w+)*|[^\w\s]; lower-case",
}


def export_onnx(workdir: str | Path, file: str | Path) -> None:
    """Writes the model of a run's newest checkpoint as ONNX.

    Raises:
      InputError: the folder holds no complete run, ONNX cannot hold its model, the package onnx is not
        installed, or the file cannot be written.

    Example::

        export_onnx("runs/imdb", "imdb.onnx")
    """
    workdir = Path(workdir).expanduser()
    predictor = Predictor.load(workdir)
    model = to_onnx(nnx.merge(predictor.graphdef, predictor.state), predictor.temperature)
    vocabulary = predictor.vocabulary
    rule = _RULES.get(vocabulary.name, f"by the tokenizer {vocabulary.name!r} of bahdanau_jax")
    model.doc_string = (
        f"A text becomes words: {rule}. Ids: {START}, then {FIRST_WORD} + the word's place in the "
        f"metadata's words, {UNKNOWN} for another word; the last max_length of them; {PAD} is padding."
    )
    about = {
        "run": workdir.resolve().name,
        "step": predictor.step,
        "labels": predictor.label_names,
        "max_length": predictor.bucket_lengths[-1],
        "tokenizer": vocabulary.name,
        "tokenizer_options": vocabulary.options,
        "temperature": predictor.temperature,
        "words": vocabulary.words,
    }
    for name, value in about.items():  # JSON in ASCII: a word may hold half a surrogate pair
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=name, value=text)
    write_bytes(file, model.SerializeToString())


def predict_onnx(
    file: str | Path, ids: Sequence[np.ndarray], bucket_lengths: Sequence[int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Runs a file under ONNX Runtime; the arguments and results are those of `Predictor.predict_ids`.

    Raises:
      ImportError: ONNX Runtime is not installed.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found: dict[int, Any] = {}
    for chosen, batch in padded_batches(ids, bucket_lengths):
        outputs: Any = session.run(None, {"ids": batch.astype(np.int64)})
        for i, p, weights in zip(chosen, *outputs, strict=False):
            found[int(i)] = p, weights[: len(ids[i])]
    probabilities, weights = zip(*(found[i] for i in range(len(ids))), strict=True)
    return np.stack(probabilities), list(weights)
