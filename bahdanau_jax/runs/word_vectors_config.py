"""Every field of a config for word vectors, as config.py has those of a classifier."""

from typing import Literal

from pydantic import model_validator

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.all_texts_config import AllTextsConfig
from bahdanau_jax.runs.config import Natural, Positive, PositiveNumber, Section
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


class WordVectorsConfig(AllTextsConfig):
    """The training of word vectors, from which classifiers start (`init_from`)."""

    task: Literal["word_vectors"] = "word_vectors"
    """Marks a config of word vectors."""
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
