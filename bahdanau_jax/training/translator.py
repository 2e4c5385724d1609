"""Translates with a trained network."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx

from bahdanau_jax.data.pairs import TOKENIZERS, pad
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.interop.safetensors import load_safetensors
from bahdanau_jax.models.seq2seq import Seq2Seq
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.runs.safe_files import read_json
from bahdanau_jax.runs.seq2seq_config import Seq2SeqConfig
from bahdanau_jax.token_ids import END, FIRST_WORD, START

_ROWS = 256  # translated at a time


class Translation(NamedTuple):
    """A translation and its score: the log-probability, divided as `beam_search` says."""

    text: str
    score: float


class Translator:
    """A trained network and its vocabulary.

    Example::

        translator = Translator.load("runs/dates")
        translator.translate(["7 de marzo de 2004"], beams=5)[0].text    # "2004-03-07"
    """

    def __init__(self, model: Seq2Seq, vocabulary: Vocabulary, joint: str):
        self.model, self.vocabulary, self.joint = model, vocabulary, joint

    @classmethod
    def load(cls, workdir: str | Path) -> Self:
        """Reads a run's folder.

        Raises:
          InputError: the folder holds no finished run of sequence to sequence.
        """
        folder = Path(workdir).expanduser()
        if not (folder / "model.safetensors").exists():
            raise InputError(
                f"{folder} has no model.safetensors; expected the folder of a finished seq2seq run"
            )
        config = parse_config(read_json(folder / "config.json"))
        if not isinstance(config, Seq2SeqConfig):
            raise InputError(f"{folder} holds a run of another task; expected seq2seq")
        vocabulary = Vocabulary.load(folder / "vocabulary.json")
        model = build(config, vocabulary)
        load_safetensors(model, folder / "model.safetensors")
        return cls(model, vocabulary, TOKENIZERS[config.data.tokens].joint)

    def translate(
        self,
        texts: Sequence[str],
        *,
        beams: int = 1,
        length_penalty: float = 0.0,
        steps: int | None = None,
    ) -> list[Translation]:
        """The best translation of each text.

        Args:
          texts: the sources.
          beams, length_penalty: see `Seq2Seq.decode`.
          steps: most tokens of a translation, END included. None: twice the longest source's, and 16.
        """
        ids = [self.encode(text) for text in texts]
        found: list[Translation | None] = [None] * len(ids)
        order = np.argsort([len(row) for row in ids], kind="stable")
        for start in range(0, len(ids), _ROWS):
            chosen = order[start : start + _ROWS]
            source = pad([ids[i] for i in chosen], 16)
            count = min(_ROWS, len(ids)) - len(source)  # one number of rows: one compilation
            source = np.pad(source, ((0, count), (0, 0)), constant_values=START)
            most = steps or 2 * source.shape[1] + 16
            written, scores = _decode(self.model, jnp.asarray(source), most, beams, length_penalty)
            best, scores = np.asarray(written[:, 0]), np.asarray(scores[:, 0])
            for i, row, score in zip(chosen, best, scores, strict=False):
                found[i] = Translation(self.text(row), float(score))
        return [translation for translation in found if translation is not None]

    def align(self, source: str, written: str) -> tuple[list[str], list[str], np.ndarray]:
        """The tokens of a source and its translation, and the attention's weights [written, source].

        Raises:
          InputError: the network has no attention.
        """
        tokens = self.vocabulary.tokenizer.tokens
        read = self.encode(source)
        before = np.append(START, self.encode(written)[:-1]).astype(np.int32)
        _, weights = self.model(jnp.asarray(read[None]), jnp.asarray(before[None]))
        if weights is None:
            raise InputError("config.model.attention_units is 0; expected a run with attention")
        return tokens(source), tokens(written), np.asarray(weights[0])

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text's tokens, int32 [length]."""
        return self.vocabulary.encode(text)[1:]  # without START

    def text(self, ids: np.ndarray) -> str:
        """The text that ids stand for, up to END."""
        ended = np.flatnonzero(ids == END)
        ids = ids[: ended[0]] if len(ended) else ids
        return self.joint.join(self.vocabulary.decode(ids[ids >= FIRST_WORD]))


def build(config: Seq2SeqConfig, vocabulary: Vocabulary) -> Seq2Seq:
    """The network of a config, with the seed's initial weights."""
    sizes = config.model.model_dump()
    return Seq2Seq(vocab_size=len(vocabulary), **sizes, rngs=nnx.Rngs(config.seed))


@functools.partial(nnx.jit, static_argnums=(2, 3, 4))
def _decode(model: Seq2Seq, source, steps: int, beams: int, length_penalty: float):
    return model.decode(source, steps=steps, beams=beams, length_penalty=length_penalty)
