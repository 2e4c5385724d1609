"""Labelled texts in three splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bahdanau_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Examples:
    """Labelled texts in a fixed order.

    Attributes:
      texts: n texts.
      labels: int32 [n], 0 <= label < number of classes.
      ids: n distinct, stable names ("train/17"), for predictions and error messages.

    Example:
      >>> examples = Examples(["fine", "dull"], np.array([1, 0], np.int32), ["train/0", "train/1"])
      >>> len(examples), examples.take([1]).texts
      (2, ['dull'])
    """

    texts: Sequence[str]
    labels: np.ndarray
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Iterable[int] | np.ndarray) -> Examples:
        """Returns the examples at `indices`, in that order."""
        chosen = np.array(list(indices), np.int64)
        return Examples(take(self.texts, chosen), self.labels[chosen], take(self.ids, chosen))


def take(values: Sequence[Any] | np.ndarray, indices: np.ndarray) -> Any:
    """Returns the values at `indices`: a list, or what the `take` method of `values` returns.

    Example:
      >>> take("abc", np.array([2, 0]))
      ['c', 'a']
    """
    own_take = getattr(values, "take", None)  # arrays, and texts that are still in their file
    return own_take(indices) if own_take else [values[int(i)] for i in indices]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled data set in three splits.

    Attributes:
      name: name of the data set ("imdb_reviews").
      label_names: a name for each class ("neg", "pos").
      train, validation: the two splits that training may look at.
      read_test: reads the test split. A run calls it once, at its end.
      test_description: what the test split is, for tables ("IMDB test split").
      read_unlabelled: reads texts without labels, which belong to none of the splits. By default there are
        none.
      notes: how the texts were read and what was changed or left out, a line each.
      known_test: the test split where loading has read it, for checks before training, or None.
    """

    name: str
    label_names: tuple[str, ...]
    train: Examples
    validation: Examples
    read_test: Callable[[], Examples]
    test_description: str
    read_unlabelled: Callable[[], list[str]] = list
    notes: tuple[str, ...] = ()
    known_test: Examples | None = None


def unlabelled_texts(dataset: Dataset, field: str) -> list[str]:
    """Returns the texts without labels, except copies of validation texts: validation chooses models.

    Args:
      dataset: the data set to read from.
      field: the config's field that asks for them, for the message.

    Raises:
      InputError: there are none.

    Example:
      >>> held_out = Examples(["dull"], np.zeros(1, np.int32), ["validation/0"])
      >>> read = lambda: ["dull", "fine"]
      >>> dataset = Dataset("x", ("neg", "pos"), held_out, held_out, lambda: held_out, "none", read)
      >>> unlabelled_texts(dataset, "config.unlabelled")
      ['fine']
    """
    held_out = set(dataset.validation.texts)
    texts = [text for text in dataset.read_unlabelled() if text not in held_out]
    if not texts:
        raise InputError(f"{field}: {dataset.name} has no texts without labels")
    return texts
