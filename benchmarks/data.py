"""The reviews of the benchmark: IMDB's, or made-up ones of similar lengths."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Reviews:
    """Word ids of each review, int32, cut to the largest length, and labels, int32 [n]."""

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
            return cls(_split(file["flat"], file["lengths"]), file["labels"])


def _split(flat: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return np.split(flat, np.cumsum(lengths)[:-1])


def pad(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Returns int32 [n, length], padded at the end with 0."""
    ids = np.zeros((len(rows), length), np.int32)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    return ids


def read_reviews(max_length: int, vocab_size: int) -> tuple[Reviews, Reviews, str]:
    """Returns reviews to train on, reviews to predict, and a description of them."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if folder and (Path(folder) / "imdb_reviews").is_dir():
        train, test = _read_imdb(folder, max_length, vocab_size)
        name = "IMDB"
    else:
        train, test = (_make_up(n, max_length, vocab_size) for n in (22_500, 25_000))
        name = "made-up ids (TFDS_DATA_DIR has no IMDB), lengths lognormal, median 184, sigma 0.78"
    description = (
        f"{name}: {len(train.ids):,} reviews to train on, {len(test.ids):,} to predict, mean length"
        f" {train.lengths.mean():.0f} after the cut at {max_length}"
    )
    return train, test, description


def _read_imdb(folder: str, max_length: int, vocab_size: int) -> tuple[Reviews, Reviews]:
    # Imported here: a peer's Python needs neither.
    from bahdanau_jax.data.tfds import load_tfds
    from bahdanau_jax.data.vocabulary import Vocabulary

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
    # The frequency of the r-th most frequent word falls as 1 / r, as in natural language.
    flat = np.exp(rng.uniform(np.log(4), np.log(vocab_size), lengths.sum())).astype(np.int32)
    labels = rng.integers(0, 2, n, dtype=np.int32)
    return Reviews(_split(flat, lengths), labels)
