"""The texts from which words are learned without labels: those of train, and those that have no label."""

from typing import Any, NamedTuple

from bahdanau_jax.data.dataset import Dataset, unlabelled_texts
from bahdanau_jax.data.load import load_dataset
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.runs import fingerprints
from bahdanau_jax.runs.all_texts_config import AllTextsConfig


class AllTexts(NamedTuple):
    """What `read_all_texts` returns.

    Attributes:
      dataset: the data set.
      texts: those of its train split, then those without labels if the config asks for them.
      vocabulary: of these texts.
      digests: of all this, for data.json.
    """

    dataset: Dataset
    texts: list[str]
    vocabulary: Vocabulary
    digests: dict[str, Any]


def read_all_texts(settings: AllTextsConfig) -> AllTexts:
    """Reads the texts and counts their words. Validation is loaded and takes no part; test is not read.

    Raises:
      InputError: the data is not as expected, or has no texts without labels.
      DataNotFound: the data set is neither prepared nor reachable.
    """
    tokenizer = settings.tokenizer
    dataset = load_dataset(settings.data.model_dump(), seed=settings.seed, tokenizer=tokenizer.name)
    unlabelled = unlabelled_texts(dataset, "config.unlabelled") if settings.unlabelled else []
    texts = [*dataset.train.texts, *unlabelled]
    vocabulary = Vocabulary.build(
        texts, size=settings.vocab_size, tokenizer=tokenizer.name, options=tokenizer.options
    )
    read = {"texts": {"number": len(texts), "sha256": fingerprints.of_json(texts)}}
    return AllTexts(dataset, texts, vocabulary, fingerprints.of_data(dataset, vocabulary) | read)
