"""Cuts ids into padded batches of few shapes, in an order that a seed fixes and a step number resumes.

Texts of similar length share a batch, which is padded to the smallest of `bucket_lengths` that holds its
longest text. So little padding is computed, and a step is compiled once for each of a few shapes. An epoch is
a random permutation cut by bucket: it holds every text exactly once, each batch is a random draw among texts
of its length, and the batches come in random order.

Grain builds the batches ahead in threads. Checkpoints hold the state of its iterator.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from bahdanau_jax.token_ids import PAD


class Batch(NamedTuple):
    """One process's share of a batch, as NumPy or JAX arrays.

    Filler rows complete the last batch: `real` is False, and their ids are all padding.
    """

    ids: Any  # int32 [batch, time], PAD at the end
    labels: Any  # int32 [batch]
    real: Any  # bool [batch]
    rows: Any  # int32 [batch], the row in the data set, -1 for a filler


def plan_epoch(
    lengths: np.ndarray, batch_size: int, bucket_lengths: Sequence[int], rng: np.random.Generator
) -> list[np.ndarray]:
    """Cuts a random permutation of all rows into batches of similar length.

    The rows left after a bucket's last full batch move up to the next bucket. So there are exactly
    ceil(n / batch_size) batches, and at most one is short.

    Args:
      lengths: int [n], none above the last bucket's.
      batch_size: rows in a batch.
      bucket_lengths: increasing lengths.
      rng: decides the permutation and the order of the batches.

    Returns:
      an array of row numbers for each batch.

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
    """Cuts all rows into batches, longest first: the least padding, for evaluation.

    Example:
      >>> [rows.tolist() for rows in plan_by_length(np.array([3, 9, 4]), 2)]
      [[1, 2], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padding_share(lengths: np.ndarray, plan: Sequence[np.ndarray], buckets: Sequence[int]) -> float:
    """Returns the share of padding among all positions of a plan's batches.

    Example:
      >>> padding_share(np.array([3, 2]), [np.array([0, 1])], [5])
      0.5
    """
    padded = sum(len(rows) * _bucket(lengths[rows].max(), buckets) for rows in plan)
    return float(1 - sum(int(lengths[rows].sum()) for rows in plan) / padded)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch of n rows, including a short one."""
    return -(-n // batch_size)


def rows_of_step(
    lengths: np.ndarray, step: int, *, batch_size: int, bucket_lengths: Sequence[int], seed: int
) -> np.ndarray:
    """Returns the row numbers in the batch of `train_batches` at a step, counted from 1."""
    epoch, index = divmod(step - 1, steps_per_epoch(len(lengths), batch_size))
    return _plan_of_epoch(lengths, batch_size, bucket_lengths, seed, epoch)[index]


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
    """Returns an iterator over the batches of all epochs, built ahead in threads.

    Args:
      ids: an int array for each example, none longer than the last of `bucket_lengths`.
      labels: int [n].
      batch_size: global batch size, a multiple of `process_count`.
      bucket_lengths: increasing lengths to pad to.
      epochs: how many times each example is seen.
      seed: fixes the order.
      process_index, process_count: this process's share. Shares are disjoint and together the batch.
      threads: how many build batches; the result does not depend on it.

    Returns:
      a Grain iterator of Batch, with `get_state()` and `set_state()` for exact resumption.

    Raises:
      ValueError: a row is longer than the last bucket.
    """
    padder = _Padder(ids, labels, bucket_lengths, process_index, process_count)
    source = _TrainingBatches(padder, batch_size=batch_size, epochs=epochs, seed=seed)
    return _ahead(grain.MapDataset.source(source), threads)


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
    """Returns an iterator over every example once, longest first. Arguments as in `train_batches`.

    `Batch.rows` gives the position of each example in `ids`.
    """
    padder = _Padder(ids, labels, bucket_lengths, process_index, process_count)
    plan = grain.MapDataset.source(plan_by_length(padder.lengths, batch_size))
    return _ahead(plan.map(lambda rows: padder.pad(rows, batch_size)), threads)


def _ahead(batches: grain.MapDataset, threads: int) -> grain.DatasetIterator:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(batches.to_iter_dataset(options))


def _plan_of_epoch(
    lengths: np.ndarray, batch_size: int, bucket_lengths: Sequence[int], seed: int, epoch: int
) -> list[np.ndarray]:
    return plan_epoch(lengths, batch_size, bucket_lengths, np.random.default_rng([seed, epoch]))


def _bucket(length: int, bucket_lengths: Sequence[int]) -> int:
    return int(bucket_lengths[int(np.searchsorted(bucket_lengths, length))])


class _TrainingBatches:
    """Random access to the batches of all epochs. Grain reads it from several threads."""

    def __init__(self, padder: "_Padder", *, batch_size: int, epochs: int, seed: int):
        self._padder, self._batch_size, self._seed = padder, batch_size, seed
        self._steps_per_epoch = steps_per_epoch(len(padder.lengths), batch_size)
        self._length = self._steps_per_epoch * epochs
        # The latest plans. A plan is a pure function of (seed, epoch), so threads may race to store it.
        self._plans: dict[int, list[np.ndarray]] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Batch:
        epoch, index = divmod(int(index), self._steps_per_epoch)
        plan = self._plans.get(epoch)
        if plan is None:
            lengths, buckets = self._padder.lengths, self._padder.buckets
            plan = _plan_of_epoch(lengths, self._batch_size, buckets, self._seed, epoch)
            self._plans = {**{e: p for e, p in self._plans.items() if e >= epoch - 1}, epoch: plan}
        return self._padder.pad(plan[index], self._batch_size)


class _Padder:
    """Pads some of the examples' rows to one process's share of a batch."""

    def __init__(
        self,
        ids: Sequence[np.ndarray],
        labels: np.ndarray,
        bucket_lengths: Sequence[int],
        process_index: int,
        process_count: int,
    ):
        self._ids, self._labels = ids, np.asarray(labels, np.int32)
        self.lengths = np.array([len(x) for x in ids], np.int64)
        self.buckets = tuple(bucket_lengths)
        self._process_index, self._process_count = process_index, process_count
        if len(ids) and self.lengths.max() > self.buckets[-1]:
            longest = self.lengths.max()
            raise ValueError(f"bucket_lengths: the last is {self.buckets[-1]}, a row has {longest}")

    def pad(self, rows: np.ndarray, batch_size: int) -> Batch:
        # The padded length comes from the whole batch: all processes must compile the same shape.
        length = _bucket(self.lengths[rows].max(), self.buckets)
        all_rows = np.full(batch_size, -1, np.int32)
        all_rows[: len(rows)] = rows
        # A process takes neighbouring rows. So the whole batch is the same array for any number of processes,
        # and dropout, which depends on the row, draws the same.
        share = batch_size // self._process_count
        own = all_rows[self._process_index * share :][:share]
        ids = np.full((len(own), length), PAD, np.int32)
        labels = np.zeros(len(own), np.int32)
        for i, row in enumerate(own):
            if row >= 0:
                ids[i, : self.lengths[row]] = self._ids[row]
                labels[i] = self._labels[row]
        return Batch(ids, labels, own >= 0, own)
