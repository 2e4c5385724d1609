"""Every field of a config for sequence to sequence, as config.py has those of a classifier."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.config import (
    LARGEST,
    Natural,
    NumberFromZero,
    Positive,
    PositiveNumber,
    Section,
)


class PairsOfTexts(Section):
    """What to translate."""

    source: Literal["reverse", "sort", "dates", "tsv"] = "reverse"
    """Strings of digits to reverse or to sort, "dates" to write in ISO form, or a "tsv" file of your own."""
    path: str = ""
    """The training pairs of "tsv": a source, a tab and a target on each line, in UTF-8."""
    validation_path: str = ""
    """The validation pairs of "tsv". "": a tenth of the training pairs."""
    test_path: str = ""
    """The test pairs of "tsv". "": a tenth of the training pairs."""
    tokens: Literal["characters", "words"] = "characters"
    """What is read and written one by one. Words stand between blanks."""
    train_size: Positive = 50_000
    """Training pairs to make. This field and those below have no effect on "tsv"."""
    validation_size: Positive = 1_000
    """Validation pairs to make."""
    test_size: Positive = 2_000
    """Test pairs to make."""
    shortest: Positive = 3
    """Least digits of a string, or dates of a line."""
    longest: Positive = 12
    """Most digits of a string, or dates of a line, in training and validation."""
    test_longest: Natural = 0
    """The most in test, which may be longer than anything trained on. 0: `longest`."""


class Seq2SeqModel(Section):
    """The network."""

    embedding_features: Positive = 64
    """Size of the embeddings."""
    hidden_features: Annotated[int, Field(ge=1, le=65_536)] = 64
    """State size of each direction of the encoder, and of the decoder."""
    attention_units: Natural = 64
    """Hidden layer of the attention. 0: none, each step reads the encoder's last states."""
    cell: Literal["gru", "lstm"] = "gru"
    """Cell of encoder and decoder. The paper's is a GRU."""


class Seq2SeqConfig(Section):
    """The training of a network that translates."""

    task: Literal["seq2seq"] = "seq2seq"
    """Marks a config of sequence to sequence."""
    seed: Natural = 0
    """Seed of everything random."""
    data: PairsOfTexts = PairsOfTexts()
    vocab_size: Annotated[int, Field(ge=5, le=LARGEST)] = 30_000
    """Most ids, those of the most frequent tokens of sources and targets."""
    model: Seq2SeqModel = Seq2SeqModel()
    steps: Positive = 1_500
    """Optimizer steps (Adam)."""
    batch_size: Positive = 64
    """Pairs in each step, of about one length."""
    learning_rate: PositiveNumber = 3e-3
    """Of the first step; it falls to 0 in a line."""
    clip_norm: NumberFromZero = 1.0
    """Largest norm of a gradient. 0: no bound."""
    beams: Positive = 5
    """Beams of the beam search that the result compares with greedy decoding."""
    length_penalty: NumberFromZero = 0.0
    """A beam's score is its log-probability / length ** length_penalty."""

    @model_validator(mode="after")
    def _lengths(self) -> "Seq2SeqConfig":
        data = self.data
        if data.longest < data.shortest:
            raise InputError(
                f"config.data.longest is {data.longest}; expected at least config.data.shortest,"
                f" {data.shortest}"
            )
        if data.test_longest and data.test_longest < data.shortest:
            raise InputError(
                f"config.data.test_longest is {data.test_longest}; expected 0 or at least "
                f"config.data.shortest, {data.shortest}"
            )
        return self
