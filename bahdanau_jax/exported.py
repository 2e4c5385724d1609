"""A model that was exported to one file: it predicts with nothing but jax and numpy.

    python imdb.pyz "A dull first hour, then pure joy." "Wonderful."
    python imdb.pyz < reviews.txt

prints an object of JSON for each text, or each line of stdin. From Python, the same:

    sys.path.insert(0, "imdb.pyz")
    from bahdanau_jax.exported import Exported
    for prediction in Exported("imdb.pyz")(["Wonderful."]): ...

This module goes into the file (`export.py` writes it), with the text rule: it imports nothing else.
"""

import io
import json
import sys
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from bahdanau_jax.text import PAD, Vocabulary

_ROWS = (256, 16, 1)  # in a batch; of these the model is compiled for each length


class Exported:
    """A function from texts to predictions.

    Args:
      file: what `export.export_model` wrote.

    Attributes:
      about: where the model comes from, what it reads and what its classes are called.
      call: the model itself, any batch size and length: (weights by name, int32 ids [batch, time], 0 for
        padding) -> probabilities float32 [batch, classes] and attention float32 [batch, time].
      weights: its first argument.
    """

    def __init__(self, file: str):
        with zipfile.ZipFile(file) as parts:
            self.about: dict[str, Any] = json.loads(parts.read("about.json"))
            vocabulary = json.loads(parts.read("vocabulary.json").decode("utf-8", "surrogatepass"))
            self.call = jax.jit(export.deserialize(bytearray(parts.read("model.stablehlo"))).call)
            with np.load(io.BytesIO(parts.read("weights.npz"))) as arrays:
                self.weights = {name: jax.numpy.asarray(arrays[name]) for name in arrays.files}
        words = vocabulary.pop("words")
        self.vocabulary = Vocabulary(words, **vocabulary)

    def __call__(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """For each text its label, its probability, and that of every class; each word's attention."""
        lengths: list[int] = self.about["bucket_lengths"]
        ids = self.vocabulary.encode_all(texts, max_length=lengths[-1])
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
                found[i] = self._prediction(ids[i], p[row], weights[row, : len(ids[i])])
        return [found[i] for i in range(len(ids))]

    def _prediction(self, ids: np.ndarray, p: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
        names, best = self.about["label_names"], int(p.argmax())
        return {
            "label": names[best],
            "probability": float(p[best]),
            "probabilities": dict(zip(names, p.tolist(), strict=True)),
            "words": self.vocabulary.decode(ids),
            "weights": weights.tolist(),
        }


def main(file: str, arguments: Sequence[str]) -> None:
    """Predicts the arguments, or else the lines of stdin, with the model of `file`."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(__doc__)
        return
    model = Exported(file)
    texts: Iterable[str] = arguments or (line.rstrip("\r\n") for line in sys.stdin)
    waiting: list[str] = []

    def answer() -> None:
        for prediction in model(waiting):
            print(json.dumps(prediction))
        waiting.clear()

    for text in texts:
        waiting.append(text)
        if len(waiting) == 4 * _ROWS[0]:
            answer()
    answer()
