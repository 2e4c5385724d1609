"""Every field of a config for a language model, as config.py has those of a classifier."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bahdanau_jax.runs.all_texts_config import AllTextsConfig
from bahdanau_jax.runs.config import Optimizer, Positive, Rate, Section, check_bucket_lengths
from bahdanau_jax.runs.safe_files import check_size


class LanguageModelSizes(Section):
    """The network. A classifier that starts from it has the same sizes."""

    embedding_features: Positive = 128
    """Size of a word vector."""
    hidden_features: Positive = 128
    """Size of an LSTM's state, per direction."""
    dropout: Rate = 0.25
    """Dropout rate on the word vectors, one mask per text."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the LSTM's matrix products."""
    implementation: Literal["auto", "scan", "native", "fused", "cudnn"] = "auto"
    """How the recurrence runs, as in a classifier's config."""


class LanguageModelConfig(AllTextsConfig):
    """The training of a language model, for a classifier's `language_model` or `init_from`."""

    task: Literal["language_model"] = "language_model"
    """Marks a config of a language model."""
    max_length: Annotated[int, Field(ge=2, le=1_000_000)] = 400
    """A longer text is cut into pieces of equal length, which are read apart."""
    bucket_lengths: Sequence[Positive] = (160, 256, 400)
    """Increasing lengths to pad to, as in a classifier's config."""
    model: LanguageModelSizes = LanguageModelSizes()
    candidates: Positive = 1_024
    """Random words that each word competes with in training."""
    optimizer: Optimizer = Optimizer(learning_rate=2e-3)
    batch_size: Positive = 64
    """Pieces per step, over all devices."""
    epochs: Positive = 8
    """Passes over the texts."""
    save_every_steps: Positive = 250
    """Steps between two checkpoints. One is also saved after each epoch."""
    perplexity_texts: Positive = 500
    """Validation texts, at most, on which the perplexity is measured after each epoch."""

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "LanguageModelConfig":
        check_bucket_lengths(self.bucket_lengths, self.max_length)
        sizes = self.model
        check_size(
            "the parameters of config.model",
            self.vocab_size * (sizes.embedding_features + sizes.hidden_features),
        )
        return self
