"""A trained run as a function: texts in; labels, probabilities, words and their attention weights out.

Example:
    predictor = Predictor.load("runs/imdb")
    [prediction] = predictor(["A quiet, wonderful film."])
    prediction.label, prediction.probability    # ("pos", 0.98)
    max(zip(prediction.weights, prediction.words))    # (0.41, "wonderful")
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from bahdanau_jax.data.tokenizer import SPECIAL_WORDS, Tokenizer, Words, each_text
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError, one_line
from bahdanau_jax.evaluation.calibration import read_temperature
from bahdanau_jax.evaluation.int16 import check_compared
from bahdanau_jax.models.build import build_classifier
from bahdanau_jax.models.classifier import for_prediction
from bahdanau_jax.models.probabilities import probabilities
from bahdanau_jax.runs.config import Config
from bahdanau_jax.runs.flags import check_flags, check_not_forked
from bahdanau_jax.runs.parse_config import parse_config, upgrade
from bahdanau_jax.runs.restore_model import check_holds_weights, restore_model
from bahdanau_jax.runs.safe_files import check_folder, read_json
from bahdanau_jax.token_ids import PAD, START, UNKNOWN

_LARGE = {"cpu": 64}  # rows in a batch that fit a CPU's caches; 256 on other platforms
_SMALL = 16  # rows in a batch of a few texts; a single text has a batch of its own


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """What a model makes of one text.

    Attributes:
        label: name of the likeliest class.
        probability: of that class.
        probabilities: float32 [classes].
        words: what the model reads: "<start>", then the tokenizer's words; the last `max_length` of them if
            there are more.
        weights: float32 [words], attention weights. They sum to 1, except for a run trained with
            `mask_attention=False`, where padding takes a share.
        known: bool [words], False for a word outside the vocabulary.
        tokenizer: what cut the text into words.
    """

    label: str
    probability: float
    probabilities: np.ndarray
    words: list[str]
    weights: np.ndarray
    known: np.ndarray
    tokenizer: Tokenizer = Words()


class Predictor:
    """A model with its vocabulary.

    It does not work in a process that is forked after it was loaded, as by `gunicorn --preload`: JAX does not.
    Load it in the child, or spawn.

    Args:
        model: the classifier. Dropout is off here, whatever its mode.
        vocabulary: the words it was trained with.
        label_names: a name for each class.
        bucket_lengths: increasing lengths to pad to. A text is cut to the last one.
        step: number of training steps.
        temperature: divides the logits; see `calibration.py`.
    """

    def __init__(
        self,
        model: nnx.Module,
        vocabulary: Vocabulary,
        *,
        label_names: Sequence[str],
        bucket_lengths: Sequence[int],
        step: int = 0,
        temperature: float = 1.0,
    ):
        check_not_forked()
        self.vocabulary, self.step, self.temperature = vocabulary, step, temperature
        self.label_names = tuple(label_names)
        self.bucket_lengths = tuple(bucket_lengths)
        view = nnx.view(model, deterministic=True, raise_if_not_found=False)
        self.graphdef, self.state = nnx.split(view)
        self.products = "float32"

    @classmethod
    def load(cls, workdir: str | Path, *, products: str = "float32") -> Predictor:
        """Reads the latest checkpoint of a run folder, and writes nothing.

        Args:
            workdir: the run's folder.
            products: "float32"; or "int16", for faster products of rounded numbers on a CPU, once
                `python -m experiments.int16` has compared them on the run's validation texts.

        Raises:
            InputError: the folder holds no run or no checkpoint yet, or a file in it is damaged, or a
                flag of JAX leaves no device, or int16 is asked for and was not compared, or cannot be had.
        """
        workdir = Path(workdir).expanduser()
        check_folder(workdir)
        check_not_forked()
        check_flags()
        config = read_config(workdir)
        label_names = _read_label_names(workdir)
        vocabulary = Vocabulary.load(workdir / "vocabulary.json")
        if len(vocabulary) > config.vocab_size:
            raise InputError(
                f"{workdir}/vocabulary.json has {len(vocabulary)} ids; expected at most the "
                f"{config.vocab_size} of config.json"
            )
        fields = config.model.model_dump()
        try:
            # Abstract: fresh weights would take seconds and be thrown away.
            model = nnx.eval_shape(
                lambda: build_classifier(
                    fields, config.vocab_size, len(label_names), rngs=nnx.Rngs(0)
                )
            )
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise InputError(
                f"{workdir}/config.json describes no model: {one_line(error)}"
            ) from error
        step = restore_model(workdir, model)
        if products != "float32":
            check_compared(workdir, step)
        predictor = cls(
            model,
            vocabulary,
            label_names=label_names,
            bucket_lengths=config.bucket_lengths,
            step=step,
            temperature=read_temperature(workdir),
        )
        return predictor if products == "float32" else predictor.with_products(products)

    def with_products(self, products: str) -> Predictor:
        """The same model with products of "float32" or "int16"; see `PredictionBiLSTM`.

        Raises:
            InputError: they cannot be had here; says why.
        """
        predictor = copy.copy(self)
        predictor.__dict__.pop("_fastest", None)
        predictor.products = products
        try:
            _ = predictor._fastest
        except ValueError as error:
            raise InputError(str(error)) from error
        return predictor

    @cached_property
    def _fastest(self) -> tuple[nnx.GraphDef, nnx.State]:
        """What predicts: the model's own form for prediction, if it has one."""
        with outside_meshes():
            return nnx.split(for_prediction(nnx.merge(self.graphdef, self.state), self.products))

    def __call__(self, texts: Sequence[str]) -> list[Prediction]:
        """A prediction for each text, in the same order.

        Probabilities are calibrated by the run's temperature if it has one.

        Raises:
            InputError: one of them is no text, for example NaN; names its position.
        """
        words = [self.vocabulary.tokenizer.tokens(text) for text in each_text(texts)]
        longest = self.bucket_lengths[-1]
        ids = [self.vocabulary.encode_words(x, max_length=longest) for x in words]
        found = zip(words, ids, *self.predict_ids(ids), strict=True)
        return [self._prediction(*one) for one in found]

    def predict_ids(self, ids: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Probabilities float32 [n, classes] and weights, float32 [length] each, of n rows of ids."""
        check_not_forked()
        lengths = [len(x) for x in ids]
        with jax.transfer_guard("allow"), outside_meshes():
            outputs = [
                (chosen, _forward(*self._fastest, batch, self.temperature))
                for chosen, batch in padded_batches(ids, self.bucket_lengths)
            ]
            outputs = jax.device_get(outputs)
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for chosen, batch in outputs:
            for i, p, weights in zip(chosen, *batch, strict=False):
                found[int(i)] = p, weights[: lengths[i]]
        probabilities = [found[i][0] for i in range(len(ids))]
        weights = [found[i][1] for i in range(len(ids))]
        return np.array(probabilities, np.float32).reshape(len(ids), len(self.label_names)), weights

    def _prediction(
        self, words: list[str], ids: np.ndarray, p: np.ndarray, weights: np.ndarray
    ) -> Prediction:
        best = int(p.argmax())
        return Prediction(
            label=self.label_names[best],
            probability=float(p[best]),
            probabilities=p,
            words=[SPECIAL_WORDS[START], *words][-len(ids) :],
            weights=weights,
            known=ids != UNKNOWN,
            tokenizer=self.vocabulary.tokenizer,
        )


class WordsRead(NamedTuple):
    """The words of a text that the model reads, and the scale on which their weights are shown."""

    spans: list[tuple[int, int]]  # where each stands in the text
    weights: np.ndarray  # [words]
    known: np.ndarray  # bool [words]: in the vocabulary
    low: (
        float  # smallest weight; attention is often even, and a scale from 0 would hide differences
    )
    top: float  # largest weight
    reach: float  # top - low, at least 1e-9
    unread: int  # words before these


def words_read(text: str, prediction: Prediction) -> WordsRead:
    """Finds the words of `prediction` in its text; of a long text, only its last words were read."""
    all_spans = prediction.tokenizer.spans(text)
    spans = all_spans[-len(prediction.words) :]
    weights, known = (x[len(x) - len(spans) :] for x in (prediction.weights, prediction.known))
    low, top = (float(weights.min()), float(weights.max())) if spans else (0.0, 1.0)
    reach = max(top - low, 1e-9)
    return WordsRead(spans, weights, known, low, top, reach, len(all_spans) - len(spans))


def padded_batches(
    ids: Sequence[np.ndarray], bucket_lengths: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cuts rows of ids into padded batches of similar length.

    A batch has 64 rows (256 on other platforms than a CPU), 16 or 1, so few shapes are compiled. Filler rows at
    the end of a batch hold a text without words.

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


def read_config(workdir: Path) -> Config:
    """The config of a run's folder, as this version writes it.

    Raises:
        InputError: the folder holds no config of a classifier.
    """
    file = workdir / "config.json"
    if not file.is_file():
        raise InputError(f"{workdir} is not a run folder: it holds no config.json")
    found = read_json(file)
    if not isinstance(found, dict) or "task" in found:
        raise InputError(f"{file} is not the config of a classifier")
    check_holds_weights(workdir, found)
    try:
        return parse_config(upgrade(found))
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _read_label_names(workdir: Path) -> list[str]:
    """The names of the classes, which a run writes to data.json when it starts."""
    file = workdir / "data.json"
    found = read_json(file)
    try:
        names = found["data set"]["labels"]
        if not isinstance(names, list) or len(names) < 2:
            raise TypeError(f"labels are {names!r:.100}")
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: expected the names of two or more classes") from error
    return [str(name) for name in names]


def outside_meshes():
    """A context without the caller's mesh of devices: a predictor's arrays lie on one device."""
    return jax.set_mesh(Mesh(np.empty((), object), ()))


@partial(jax.jit, static_argnums=0)
def _forward(graphdef: nnx.GraphDef, state: nnx.State, ids: jax.Array, temperature: float):
    """Probabilities [batch, classes] and weights [batch, time] of ids [batch, time]."""
    logits, weights = nnx.merge(graphdef, state)(ids)
    return probabilities(logits / temperature), weights
