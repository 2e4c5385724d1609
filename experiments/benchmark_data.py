"""The reviews that the benchmark computes on: IMDB's, or made up at such lengths."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Reviews:
    """Ids of each review, int32, after the cut, and the labels, int32 [n]."""

    ids: list[np.ndarray]
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(row) for row in self.ids])

    def save(self, path: Path) -> None:
        np.savez(path, flat=np.concatenate(self.ids), lengths=self.lengths, labels=self.labels)

    @classmethod
    def load(cls, path: str | Path) -> "Reviews":
        with np.load(path) as file:
            ends = np.cumsum(file["lengths"])
            return cls(np.split(file["flat"], ends[:-1]), file["labels"])


def pad(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    """int32 [n, length], padded behind with 0."""
    ids = np.zeros((len(rows), length), np.int32)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    return ids


def read_reviews(max_length: int, vocab_size: int) -> tuple[Reviews, Reviews, str]:
    """Reviews to train on, reviews to predict, and what they are."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if folder and (Path(folder) / "imdb_reviews").is_dir():
        train, test = _read_imdb(folder, max_length, vocab_size)
        name = "IMDB"
    else:
        train, test = (
            _make_up(22_500, max_length, vocab_size),
            _make_up(25_000, max_length, vocab_size),
        )
        name = "made-up ids (TFDS_DATA_DIR has no IMDB), lengths lognormal, median 184, sigma 0.78"
    description = (
        f"{name}: {len(train.ids):,} reviews to train on, {len(test.ids):,} to predict, mean length"
        f" {train.lengths.mean():.0f} after the cut at {max_length}"
    )
    return train, test, description


def _read_imdb(folder: str, max_length: int, vocab_size: int) -> tuple[Reviews, Reviews]:
    from bahdanau_jax.sources import load_tfds
    from bahdanau_jax.text import Vocabulary

    dataset = load_tfds("imdb_reviews", data_dir=folder, validation_size=2_500)
    vocabulary = Vocabulary.build(dataset.train.texts, size=vocab_size)
    train, test = (
        Reviews(vocabulary.encode_all(split.texts, max_length=max_length), split.labels)
        for split in (dataset.train, dataset.read_test())
    )
    return train, test


def _make_up(n: int, max_length: int, vocab_size: int) -> Reviews:
    rng = np.random.default_rng(n)
    lengths = rng.lognormal(np.log(184), 0.78, n).astype(int).clip(10, max_length)
    # The r-th most frequent word is drawn about as often as 1 / r says, as in natural language.
    flat = np.exp(rng.uniform(np.log(4), np.log(vocab_size), lengths.sum())).astype(np.int32)
    labels = rng.integers(0, 2, n, dtype=np.int32)
    return Reviews(np.split(flat, np.cumsum(lengths)[:-1]), labels)
