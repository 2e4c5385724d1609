"""A trained run as a function: texts in; labels, probabilities, words and their attention weights out.

Example:
    predictor = Predictor.load("runs/imdb")
    [prediction] = predictor(["A quiet, wonderful film."])
    prediction.label, prediction.probability    # ("pos", 0.98)
    max(zip(prediction.weights, prediction.words))    # (0.41, "wonderful")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from bahdanau_jax.calibration import read_temperature
from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.ensemble import Ensemble, make_classifier
from bahdanau_jax.errors import InputError
from bahdanau_jax.objective import probabilities
from bahdanau_jax.text import (
    PAD,
    SPECIAL_WORDS,
    START,
    UNKNOWN,
    Vocabulary,
    split_words,
    word_spans,
)
from bahdanau_jax.untrusted import check_folder
from bahdanau_jax.workdir import check_ranges, read_json

_LARGE = {"cpu": 64}  # rows in a batch, elsewhere 256: what a CPU's caches hold is faster
_SMALL = 16  # a text alone goes alone


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """What a model makes of one text.

    Attributes:
        label: the likeliest class's name; its number as a text where the run names none.
        probability: of that class.
        probabilities: float32 [classes].
        words: what the model reads: "<start>", then the words as `split_words` has them; of a longer
            text the last `max_length` of these.
        weights: float32 [words], the attention's. They sum to 1, unless the run was trained with
            `mask_attention=False`: the padding's share is then missing.
        marks: whether marks are words, see `split_words`.
        known: bool [words], False for a word outside the vocabulary: to the model all of these are
            one and the same.
    """

    label: str
    probability: float
    probabilities: np.ndarray
    words: list[str]
    weights: np.ndarray
    known: np.ndarray
    marks: bool = False


class Predictor:
    """A model with its vocabulary.

    Args:
        model: the classifier; dropout is off here, whatever its mode.
        vocabulary: the one it was trained with.
        label_names: a name for each class.
        bucket_lengths: the increasing lengths to pad to; the last is the most words that are read.
        step: how many steps the model was trained for.
        temperature: what the logits are divided by; see `calibration.py`.
    """

    def __init__(
        self,
        model: AttentionClassifier | Ensemble,
        vocabulary: Vocabulary,
        *,
        label_names: Sequence[str],
        bucket_lengths: Sequence[int],
        step: int = 0,
        temperature: float = 1.0,
    ):
        self.vocabulary, self.step, self.temperature = vocabulary, step, temperature
        self.label_names = tuple(label_names)
        self.bucket_lengths = tuple(bucket_lengths)
        self.graphdef, self.state = nnx.split(nnx.view(model, deterministic=True))

    @classmethod
    def load(cls, workdir: str | Path) -> Predictor:
        """The model of a run's newest checkpoint, from the run's folder alone, which is only read.

        Raises:
            InputError: the folder holds no run or no checkpoint yet, or a file in it is damaged.
        """
        # Orbax and Grain, which `import bahdanau_jax` does without.
        from bahdanau_jax.checkpoint import restore_model, saved_shapes

        workdir = Path(workdir).expanduser()
        check_folder(workdir)
        model_fields, bucket_lengths = _read_config(workdir)
        shapes = saved_shapes(workdir)
        try:
            first = "members.0." if "members.0.output.bias" in shapes else ""  # of an Ensemble
            rows = shapes[f"{first}embedding.embedding"][0]
            outputs = shapes[f"{first}output.bias"][0]
        except (KeyError, IndexError) as error:
            raise InputError(
                f"{workdir}/checkpoints: expected those of an AttentionClassifier"
            ) from error
        num_classes = 2 if outputs == 1 else outputs
        label_names = _read_label_names(workdir, num_classes)
        vocabulary = Vocabulary.load(workdir / "vocabulary.json")
        if len(vocabulary) > rows:
            raise InputError(
                f"{workdir}/vocabulary.json has {len(vocabulary)} ids; expected at most the {rows} "
                "of the checkpoint"
            )
        try:
            # Abstract: fresh weights would take seconds and be thrown away.
            model = nnx.eval_shape(
                lambda: make_classifier(rows, num_classes, rngs=nnx.Rngs(0), **model_fields)
            )
        except (AssertionError, AttributeError, OverflowError, TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            raise InputError(f"{workdir}/config.json describes no model: {message}") from error
        step = restore_model(workdir, model)
        return cls(
            model,
            vocabulary,
            label_names=label_names,
            bucket_lengths=bucket_lengths,
            step=step,
            temperature=read_temperature(workdir),
        )

    def __call__(self, texts: Sequence[str]) -> list[Prediction]:
        """A prediction for each text, in the texts' order.

        Its probabilities are those of the run's temperature, where the run has one.
        """
        if isinstance(texts, str):
            raise TypeError("texts: expected a list of texts, got a text; pass [text]")
        texts = list(texts)
        ids = self.vocabulary.encode_all(texts, max_length=self.bucket_lengths[-1])
        found = zip(texts, ids, *self.predict_ids(ids), strict=True)
        return [self._prediction(*one) for one in found]

    def predict_ids(self, ids: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Probabilities float32 [n, classes] and weights, float32 [length] each, of n rows of ids."""
        lengths = [len(x) for x in ids]
        outputs = [
            (chosen, _forward(self.graphdef, self.state, batch, self.temperature))
            for chosen, batch in padded_batches(ids, self.bucket_lengths)
        ]
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for chosen, batch in jax.device_get(outputs):
            for i, p, weights in zip(chosen, *batch, strict=False):
                found[int(i)] = p, weights[: lengths[i]]
        probabilities = [found[i][0] for i in range(len(ids))]
        weights = [found[i][1] for i in range(len(ids))]
        return np.array(probabilities, np.float32).reshape(len(ids), len(self.label_names)), weights

    def _prediction(
        self, text: str, ids: np.ndarray, p: np.ndarray, weights: np.ndarray
    ) -> Prediction:
        best = int(p.argmax())
        return Prediction(
            label=self.label_names[best],
            probability=float(p[best]),
            probabilities=p,
            words=[SPECIAL_WORDS[START], *split_words(text, marks=self.vocabulary.marks)][
                -len(ids) :
            ],
            weights=weights,
            known=ids != UNKNOWN,
            marks=self.vocabulary.marks,
        )


class WordsRead(NamedTuple):
    """The words of a text that the model reads, and the scale that their weights are shown on."""

    spans: list[tuple[int, int]]  # where each stands in the text
    weights: np.ndarray  # [words]
    known: np.ndarray  # bool [words]: in the vocabulary
    low: (
        float  # the lightest weight; attention is often near even: from 0 all would be shaded alike
    )
    top: float
    reach: float  # top - low, but not 0
    unread: int  # words before them


def words_read(text: str, prediction: Prediction) -> WordsRead:
    """Finds the words of `prediction` in its text: of a long one the end, and then no start either."""
    all_spans = word_spans(text, marks=prediction.marks)
    spans = all_spans[-len(prediction.words) :]
    weights, known = (x[len(x) - len(spans) :] for x in (prediction.weights, prediction.known))
    low, top = (float(weights.min()), float(weights.max())) if spans else (0.0, 1.0)
    reach = max(top - low, 1e-9)
    return WordsRead(spans, weights, known, low, top, reach, len(all_spans) - len(spans))


def padded_batches(
    ids: Sequence[np.ndarray], bucket_lengths: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cuts rows of ids into padded batches: rows of similar length together.

    A batch has at most 64 rows (256 off the CPU); there are three numbers of rows and a few lengths,
    so that little is compiled. Rows that only complete a batch, at its end, hold a text without words.

    Args:
        ids: int32 [length] each, none longer than the last bucket.
        bucket_lengths: the increasing lengths to pad to.

    Yields:
        which of `ids` stand in the batch, and the batch, int32 [rows, length].
    """
    large = _LARGE.get(jax.default_backend(), 256)
    lengths = np.array([len(x) for x in ids], np.int64)
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        rows = large if len(order) >= large else _SMALL if len(order) > 1 else 1
        chosen, order = order[:rows], order[rows:]
        length = bucket_lengths[int(np.searchsorted(bucket_lengths, lengths[chosen[0]]))]
        batch = np.full((rows, length), PAD, np.int32)
        batch[:, 0] = START
        for row, i in zip(batch, chosen, strict=False):
            row[: lengths[i]] = ids[i]
        yield chosen, batch


def _read_config(workdir: Path) -> tuple[dict[str, Any], list[int]]:
    """The config's `model` and `bucket_lengths`; a field that came after the run is not missed."""
    file = workdir / "config.json"
    if not file.is_file():
        raise InputError(f"{workdir} is no run folder: it holds no config.json")
    config = read_json(file)
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise InputError(f"{file} is damaged: expected the fields of a config, `model` among them")
    model, lengths = config["model"], config.get("bucket_lengths")
    ok = isinstance(lengths, list) and all(type(x) is int and x > 0 for x in lengths)
    if not ok or not lengths or lengths != sorted(set(lengths)):
        raise InputError(f"{file}: bucket_lengths is {lengths!r}; expected increasing lengths")
    try:
        fields = {f"model.{name}": value for name, value in model.items()}
        check_ranges(fields | {"max_length": lengths[-1]})
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return model, lengths


def _read_label_names(workdir: Path, num_classes: int) -> list[str]:
    """Those of result.json; numbers where the run has not finished."""
    file = workdir / "result.json"
    result = read_json(file) if file.exists() else {}
    if not isinstance(result, dict):
        raise InputError(f"{file} is damaged: expected the fields of a result")
    names = result.get("label_names", [str(i) for i in range(num_classes)])
    if not isinstance(names, list) or len(names) != num_classes:
        raise InputError(f"{file}: label_names is {names!r}; expected {num_classes} names")
    return [str(name) for name in names]


@partial(jax.jit, static_argnums=0)
def _forward(graphdef: nnx.GraphDef, state: nnx.State, ids: jax.Array, temperature: float):
    """Probabilities [batch, classes] and weights [batch, time] of ids [batch, time]."""
    logits, weights = nnx.merge(graphdef, state)(ids)
    return probabilities(logits / temperature), weights
