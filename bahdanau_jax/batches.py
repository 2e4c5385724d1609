"""Ids -> padded batches of few shapes, in an order that a seed fixes and a step number resumes.

Reviews of similar length share a batch, which is padded to the smallest of `bucket_lengths` that holds it:
little padding is computed, and a step is compiled once for each of these few shapes. The plan of an epoch
is a random permutation cut into buckets, so every review is seen exactly once an epoch, each batch is a
random draw among reviews of its length, and the batches come in random order.

Grain builds the batches ahead in threads, and its iterator's state is a part of the checkpoint.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from bahdanau_jax.text import PAD


class Batch(NamedTuple):
    """One process's share of a batch, as NumPy or JAX arrays.

    Filler rows complete a last batch: `real` is False, their ids are all padding.
    """

    ids: Any  # int32 [batch, time], padded behind with PAD
    labels: Any  # int32 [batch]; float32 where they are soft, see self_training.py
    real: Any  # bool [batch]
    rows: Any  # int32 [batch], the row in the data set, -1 for a filler


def plan_epoch(
    lengths: np.ndarray, batch_size: int, bucket_lengths: Sequence[int], rng: np.random.Generator
) -> list[np.ndarray]:
    """Cuts a random permutation of all rows into batches of similar length.

    What is left of a bucket after its last full batch moves up to the next one, so that there are exactly
    ceil(n / batch_size) batches, of which only one may be short.

    Args:
      lengths: [n] ints, none above the last bucket's.
      batch_size: rows in a batch.
      bucket_lengths: increasing.
      rng: decides the permutation and the order of the batches.

    Returns:
      one array of row numbers per batch.

    Example:
      >>> plan = plan_epoch(np.array([3, 9, 4, 8]), 2, [5, 10], np.random.default_rng(0))
      >>> sorted(sorted(batch.tolist()) for batch in plan)
      [[0, 2], [1, 3]]
    """
    order = rng.permutation(len(lengths))
    bucket = np.searchsorted(bucket_lengths, lengths[order])
    batches: list[np.ndarray] = []
    left = order[:0]
    for index in range(len(bucket_lengths)):
        rows = np.concatenate([left, order[bucket == index]])
        full = len(rows) // batch_size * batch_size
        batches.extend(rows[:full].reshape(-1, batch_size))
        left = rows[full:]
    if len(left):
        batches.append(left)
    return [batches[i] for i in rng.permutation(len(batches))]


def plan_by_length(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All rows once, longest first: for evaluation, where order does not matter and padding costs."""
    order = np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padding_share(lengths: np.ndarray, plan: Sequence[np.ndarray], buckets: Sequence[int]) -> float:
    """The share of all positions of a plan's batches that is padding."""
    padded = sum(len(rows) * _bucket(lengths[rows].max(), buckets) for rows in plan)
    return float(1 - sum(int(lengths[rows].sum()) for rows in plan) / padded)


def _bucket(length: int, bucket_lengths: Sequence[int]) -> int:
    return int(bucket_lengths[int(np.searchsorted(bucket_lengths, length))])


class _TrainingBatches:
    """Random access to the batches of all epochs; Grain reads it from several threads."""

    def __init__(self, examples: "_Padder", *, batch_size: int, epochs: int, seed: int):
        self._examples, self._batch_size, self._seed = examples, batch_size, seed
        self._steps_per_epoch = steps_per_epoch(len(examples.lengths), batch_size)
        self._length = self._steps_per_epoch * epochs
        # The newest plans; a plan is a pure function of (seed, epoch), so threads may race to store it.
        self._plans: dict[int, list[np.ndarray]] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Batch:
        epoch, index = divmod(int(index), self._steps_per_epoch)
        plan = self._plans.get(epoch)
        if plan is None:
            rng = np.random.default_rng([self._seed, epoch])
            plan = self._examples.plan_epoch(self._batch_size, rng)
            self._plans = {**{e: p for e, p in self._plans.items() if e >= epoch - 1}, epoch: plan}
        return self._examples.pad(plan[index], self._batch_size)


class _Padder:
    """The examples, and how some of their rows become one process's share of a padded batch."""

    def __init__(self, ids, labels, bucket_lengths, process_index, process_count):
        self.ids = ids
        soft = np.issubdtype(np.asarray(labels).dtype, np.floating)
        self.labels = np.asarray(labels, np.float32 if soft else np.int32)
        self.lengths = np.array([len(x) for x in ids], np.int64)
        self.buckets = tuple(bucket_lengths)
        self._process_index, self._process_count = process_index, process_count
        if len(ids) and self.lengths.max() > self.buckets[-1]:
            longest = self.lengths.max()
            raise ValueError(f"bucket_lengths: the last is {self.buckets[-1]}, a row has {longest}")

    def plan_epoch(self, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        return plan_epoch(self.lengths, batch_size, self.buckets, rng)

    def pad(self, rows: np.ndarray, batch_size: int) -> Batch:
        # The padded length comes from the whole batch: all processes must compile the same shape.
        length = _bucket(self.lengths[rows].max(), self.buckets)
        everyones = np.full(batch_size, -1, np.int32)
        everyones[: len(rows)] = rows
        # Neighbours, in the processes' order: the whole batch is then the same array with any number of
        # processes, and dropout, which goes by the row, draws the same.
        share = batch_size // self._process_count
        own = everyones[self._process_index * share :][:share]
        ids = np.full((len(own), length), PAD, np.int32)
        labels = np.zeros(len(own), self.labels.dtype)
        for i, row in enumerate(own):
            if row >= 0:
                ids[i, : self.lengths[row]] = self.ids[row]
                labels[i] = self.labels[row]
        return Batch(ids, labels, own >= 0, own)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Batches in an epoch, the last, short one counted."""
    return -(-n // batch_size)


def rows_of_step(
    lengths: np.ndarray, step: int, *, batch_size: int, bucket_lengths: Sequence[int], seed: int
) -> np.ndarray:
    """The rows that `train_batches` has in the batch of a step, counted from 1."""
    epoch, index = divmod(step - 1, steps_per_epoch(len(lengths), batch_size))
    return plan_epoch(lengths, batch_size, bucket_lengths, np.random.default_rng([seed, epoch]))[
        index
    ]


def train_batches(
    ids: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    batch_size: int,
    bucket_lengths: Sequence[int],
    epochs: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> grain.DatasetIterator:
    """An iterator over the batches of all epochs, built ahead in threads.

    Args:
      ids: one int array per example, none longer than the last of `bucket_lengths`.
      labels: [n] ints.
      batch_size: global batch size, a multiple of `process_count`.
      bucket_lengths: the increasing padded lengths.
      epochs: how many times each example is seen.
      seed: fixes the order.
      process_index, process_count: this process's share; shares are disjoint and together the batch.
      threads: how many build batches; the result does not depend on it.

    Returns:
      a Grain iterator of Batch, with `get_state()` and `set_state()` for exact resumption.
    """
    examples = _Padder(ids, labels, bucket_lengths, process_index, process_count)
    source = _TrainingBatches(examples, batch_size=batch_size, epochs=epochs, seed=seed)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))


def eval_batches(
    ids: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    batch_size: int,
    bucket_lengths: Sequence[int],
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> grain.DatasetIterator:
    """Every example once, longest first, built ahead in threads; `Batch.rows` says which is where."""
    examples = _Padder(ids, labels, bucket_lengths, process_index, process_count)
    source = grain.MapDataset.source(plan_by_length(examples.lengths, batch_size))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(source.map(lambda rows: examples.pad(rows, batch_size)).to_iter_dataset(options))
