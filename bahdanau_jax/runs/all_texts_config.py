"""The fields that configs of word vectors and of a language model share: which texts to learn from."""

from typing import Annotated

from pydantic import Field

from bahdanau_jax.runs.config import LARGEST, Data, Natural, Section, Tokenizer


class AllTextsConfig(Section):
    """What `recipes.all_texts` reads."""

    seed: Natural = 0
    """Seed of everything random."""
    data: Data = Data()
    unlabelled: bool = True
    """Also read the texts without labels."""
    vocab_size: Annotated[int, Field(ge=5, le=LARGEST)] = 30_000
    """Number of ids."""
    tokenizer: Tokenizer = Tokenizer(name="marks")
