"""Predicts with a model exported to one file; needs only jax and numpy.

    python imdb.pyz "A dull first hour, then pure joy." "Wonderful."
    python imdb.pyz < reviews.txt

Both print one JSON object for each text; stdin holds one text a line, in UTF-8, and each line is answered
as soon as it is there. From Python:

    sys.path.insert(0, "imdb.pyz")
    from bahdanau_jax.interop.standalone import Exported
    for prediction in Exported("imdb.pyz")(["Wonderful."]): ...

`export.py` copies this module into the file, with the few modules that `export.MODULES` lists.
"""

import collections
import contextlib
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from bahdanau_jax.data.text_lines import text_lines
from bahdanau_jax.data.tokenizer import (
    BUILT_IN,
    SPECIAL_WORDS,
    Tokenizer,
    WordIds,
    each_text,
    tokenizer_of,
)
from bahdanau_jax.token_ids import PAD, START

_ROWS = (256, 16, 1)  # batch sizes; the model is compiled for each of them and each length


class Exported:
    """A function from texts to predictions.

    Args:
      file: path of a file written by `export.export_model`.

    Attributes:
      about: the run, step, label names, bucket lengths and temperature.
      call: the model, for any batch size and length: (weights by name, int32 ids [batch, time], 0 for
        padding) -> probabilities float32 [batch, classes] and attention float32 [batch, time].
      weights: the first argument of `call`.
    """

    def __init__(self, file: str):
        with zipfile.ZipFile(file) as parts:
            self.about: dict[str, Any] = json.loads(parts.read("about.json"))
            vocabulary = json.loads(parts.read("vocabulary.json").decode("utf-8", "surrogatepass"))
            self.call = jax.jit(export.deserialize(bytearray(parts.read("model.stablehlo"))).call)
            with np.load(io.BytesIO(parts.read("weights.npz"))) as arrays:
                self.weights = {name: jax.numpy.asarray(arrays[name]) for name in arrays.files}
        self._ids = WordIds(vocabulary["words"])
        name, options = tokenizer_of(vocabulary)
        self._tokenizer: Tokenizer = BUILT_IN[name](**options)

    def __call__(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Returns for each text its label, the probability of each class and the attention of each word."""
        lengths: list[int] = self.about["bucket_lengths"]
        words = [self._tokenizer.tokens(text) for text in each_text(texts)]
        ids = [self._ids.encode(of_text)[-lengths[-1] :] for of_text in words]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        found: dict[int, dict[str, Any]] = {}
        while order:
            rows = next(rows for rows in _ROWS if rows <= len(order))
            chosen, order = order[:rows], order[rows:]
            length = next(length for length in lengths if length >= len(ids[chosen[0]]))
            batch = np.full((rows, length), PAD, np.int32)
            for row, i in zip(batch, chosen, strict=True):
                row[: len(ids[i])] = ids[i]
            p, weights = map(np.asarray, self.call(self.weights, batch))
            for row, i in enumerate(chosen):
                found[i] = self._prediction(words[i], p[row], weights[row, : len(ids[i])])
        return [found[i] for i in range(len(ids))]

    def _prediction(
        self, words: Sequence[str], p: np.ndarray, weights: np.ndarray
    ) -> dict[str, Any]:
        names, best = self.about["label_names"], int(p.argmax())
        return {
            "label": names[best],
            "probability": float(p[best]),
            "probabilities": dict(zip(names, p.tolist(), strict=True)),
            "words": [SPECIAL_WORDS[START], *words][-len(weights) :],
            "weights": weights.tolist(),
        }


def main(file: str, arguments: Sequence[str]) -> None:
    """Prints predictions for the arguments, or for the lines of stdin if there are none."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(__doc__)
        return
    odd = collections.Counter[str]()
    arrived = text_lines(sys.stdin.buffer, lambda what, _: odd.update([what]))
    chunks: Iterable[Sequence[str]] = [arguments] if arguments else arrived
    with _an_older_jax_is_named(file):
        model = Exported(file)
        for texts in chunks:
            for prediction in model(texts):
                print(json.dumps(prediction))
            sys.stdout.flush()
    for what, count in odd.items():
        print(f"stdin: {what}: {count:,}", file=sys.stderr)


@contextlib.contextmanager
def _an_older_jax_is_named(file: str) -> Iterator[None]:
    """JAX reads what older versions exported. What newer ones did, it may not be able to read."""
    try:
        yield
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        with zipfile.ZipFile(file) as parts:
            exported: str = json.loads(parts.read("about.json"))["jax"]
        if _numbers(exported) <= _numbers(jax.__version__):
            raise
        raise SystemExit(
            f"error: {file} was exported with JAX {exported}; expected that version or a newer one, not "
            f"{jax.__version__}"
        ) from error


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
