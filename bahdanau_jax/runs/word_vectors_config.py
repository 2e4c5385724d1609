"""Every field of a config for word vectors, as config.py has those of a classifier."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.config import (
    LARGEST,
    Data,
    Natural,
    Positive,
    PositiveNumber,
    Section,
    Tokenizer,
)
from bahdanau_jax.runs.safe_files import check_size


class WordVectors(Section):
    """Word vectors (`recipes/word_vectors.py`): skip-gram, and behind it topics."""

    embedding_features: Positive = 128
    """Size of a word vector."""
    topic_features: Natural = 0
    """How many of these features tell in which texts a word stands. Skip-gram has the others, at least one."""
    window: Positive = 8
    """Words to either side that a word predicts, at most."""
    negatives: Positive = 5
    """Negative samples per predicted word."""
    subsample: PositiveNumber = 1e-4
    """Words above this frequency are sometimes skipped."""


class WordVectorsConfig(Section):
    """The training of word vectors, from which classifiers start (`init_from`)."""

    task: Literal["word_vectors"] = "word_vectors"
    """Marks a config of word vectors."""
    seed: Natural = 0
    """Seed of everything random."""
    data: Data = Data()
    unlabelled: bool = True
    """Also read the texts without labels."""
    vocab_size: Annotated[int, Field(ge=5, le=LARGEST)] = 30_000
    """Number of ids."""
    tokenizer: Tokenizer = Tokenizer(name="marks")
    model: WordVectors = WordVectors()
    epochs: Positive = 8
    """Passes over the texts."""

    @model_validator(mode="after")
    def _fits_into_memory(self) -> "WordVectorsConfig":
        model = self.model
        check_size("config.model", self.vocab_size * model.embedding_features)
        if model.topic_features >= model.embedding_features:
            raise InputError(
                f"config.model.topic_features is {model.topic_features}; expected less than "
                f"config.model.embedding_features, {model.embedding_features}"
            )
        return self
