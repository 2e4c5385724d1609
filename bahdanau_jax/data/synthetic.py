"""Made-up reviews for tests and a first look. They need no data."""

import numpy as np

from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.errors import InputError

_NEUTRAL = (
    "the a this that film movie plot actor actress scene story director camera music it was is "
    "and but with of in on for to his her their ending script cast role hour screen watch saw "
    "think one two first last time very rather quite really never always"
).split()
_OPINIONS = (
    "awful dull boring terrible weak poor bad lifeless clumsy tedious hated worst".split(),
    "superb moving lovely great strong fine good lively graceful gripping loved best".split(),
)


def make_up(*, train_size: int, validation_size: int, test_size: int, seed: int = 0) -> Dataset:
    """Makes up reviews of 5 to 120 words.

    A quarter of a review's words are opinions, and nine opinions in ten agree with its label. There are twice
    as many reviews without a label as in train, as in IMDB.

    Args:
      train_size, validation_size, test_size: number of reviews in each split, at least 1.
      seed: the same seed gives the same reviews.

    Raises:
      InputError: a size is below 1.

    Example:
      >>> make_up(train_size=1, validation_size=1, test_size=1).label_names
      ('neg', 'pos')
    """
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    sizes["unlabelled"] = 2 * train_size
    for split, size in sizes.items():
        if size < 1:
            raise InputError(f"{split}_size is {size}; expected at least 1")

    def make(split: str) -> Examples:
        rng = np.random.default_rng([seed, list(sizes).index(split)])
        labels = rng.permutation(np.arange(sizes[split], dtype=np.int32) % 2)
        texts = [_make_up_review(rng, int(label)) for label in labels]
        return Examples(texts, labels, [f"{split}/{i}" for i in range(len(texts))])

    return Dataset(
        name="made_up",
        label_names=("neg", "pos"),
        train=make("train"),
        validation=make("validation"),
        read_test=lambda: make("test"),
        test_description=f"{test_size:,} made-up reviews",
        read_unlabelled=lambda: list(make("unlabelled").texts),
    )


def _make_up_review(rng: np.random.Generator, label: int) -> str:
    length = int(rng.integers(5, 121))
    is_opinion = rng.random(length) < 0.25
    is_opinion[rng.integers(length)] = True
    sides = np.where(rng.random(length) < 0.9, label, 1 - label)
    words = []
    new_sentence = True
    for i in range(length):
        choices = _OPINIONS[sides[i]] if is_opinion[i] else _NEUTRAL
        word = choices[rng.integers(len(choices))]
        word = word.capitalize() if new_sentence else word
        mark = rng.random()
        new_sentence = mark < 0.1 or i == length - 1
        words.append(word + (".!?"[rng.integers(3)] if new_sentence else "," * (mark < 0.2)))
        if new_sentence and i < length - 1 and rng.random() < 0.1:
            words.append("<br /><br />")
    return " ".join(words)
