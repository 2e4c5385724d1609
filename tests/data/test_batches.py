"""Each epoch holds every text once, with little padding, in an order that the seed fixes and resume keeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bahdanau_jax.data.batches import (
    eval_batches,
    padding_share,
    plan_by_length,
    plan_epoch,
    rows_of_step,
    steps_per_epoch,
    train_batches,
)

BUCKETS = (4, 8, 16)


def make(n=103, seed=0):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 1000, rng.integers(1, 17)).astype(np.int32) for _ in range(n)]
    return ids, rng.integers(0, 2, n).astype(np.int32)


def batches_of(ids, labels, **options):
    options = dict(batch_size=10, bucket_lengths=BUCKETS, epochs=2, seed=0) | options
    return train_batches(ids, labels, **options)


def same(a, b):
    return len(a) == len(b) and all(
        (x == y).all() for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def test_each_epoch_holds_every_text_once_with_its_own_ids_and_label():
    ids, labels = make()
    batches = list(batches_of(ids, labels))
    steps = steps_per_epoch(len(ids), 10)
    assert len(batches) == 2 * steps == 22
    for epoch in (batches[:steps], batches[steps:]):
        seen = np.concatenate([b.rows for b in epoch])
        assert sorted(seen[seen >= 0]) == list(range(len(ids)))
        assert (seen == -1).sum() == steps * 10 - len(ids)
    for batch in batches:
        assert batch.ids.shape[1] in BUCKETS
        for row, padded, label, real in zip(
            batch.rows, batch.ids, batch.labels, batch.real, strict=True
        ):
            assert real == (row >= 0)
            if real:
                np.testing.assert_array_equal(padded[: len(ids[row])], ids[row])
                assert (padded[len(ids[row]) :] == 0).all() and label == labels[row]
            else:
                assert (padded == 0).all()


def test_the_seed_fixes_the_order_and_epochs_differ():
    ids, labels = make()
    first = list(batches_of(ids, labels))
    assert same(first, list(batches_of(ids, labels)))
    assert same(first, list(batches_of(ids, labels, threads=7)))
    other_seed = list(batches_of(ids, labels, seed=1))
    for other in (other_seed[:11], first[11:]):
        orders = [np.concatenate([b.rows for b in epoch]) for epoch in (first[:11], other)]
        assert (orders[0] != orders[1]).any()


def test_the_rows_of_a_step_are_known_without_building_batches():
    ids, labels = make()
    lengths = np.array([len(x) for x in ids])
    for step, batch in enumerate(batches_of(ids, labels), start=1):
        rows = rows_of_step(lengths, step, batch_size=10, bucket_lengths=BUCKETS, seed=0)
        assert batch.rows[batch.real].tolist() == rows.tolist()


@pytest.mark.parametrize("consumed", [1, 10, 11, 15])
def test_a_restored_iterator_continues_at_the_same_batch(consumed):
    ids, labels = make()
    iterator = batches_of(ids, labels)
    for _ in range(consumed):
        next(iterator)
    state = iterator.get_state()
    rest = list(iterator)
    other = batches_of(ids, labels)
    other.set_state(state)
    assert same(rest, list(other))


def test_processes_share_a_batch_without_overlap():
    ids, labels = make()
    whole = list(batches_of(ids, labels))
    shares = [list(batches_of(ids, labels, process_index=i, process_count=2)) for i in range(2)]
    for batch, one, two in zip(whole, *shares, strict=True):
        assert one.ids.shape == two.ids.shape == (5, batch.ids.shape[1])
        assert sorted([*one.rows, *two.rows]) == sorted(batch.rows)


@settings(max_examples=200)
@given(
    lengths=st.lists(st.integers(0, 16), min_size=1, max_size=80),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_plan_holds_every_row_once(lengths, batch_size, seed):
    lengths = np.array(lengths)
    plan = plan_epoch(lengths, batch_size, BUCKETS, np.random.default_rng(seed))
    assert sorted(np.concatenate(plan)) == list(range(len(lengths)))
    assert len(plan) == steps_per_epoch(len(lengths), batch_size)
    assert sorted(map(len, plan))[1:] == [batch_size] * (len(plan) - 1)
    assert 0 <= padding_share(lengths, plan, BUCKETS) <= 1


def test_buckets_need_less_padding_than_one_length():
    lengths = np.clip(np.random.default_rng(0).lognormal(2, 0.5, 2000), 1, 16).astype(int)
    rng = np.random.default_rng(0)
    bucketed = padding_share(lengths, plan_epoch(lengths, 10, BUCKETS, rng), BUCKETS)
    single = padding_share(lengths, plan_epoch(lengths, 10, (16,), rng), (16,))
    assert single == pytest.approx(1 - lengths.mean() / 16)
    assert bucketed < single / 2


def test_texts_of_a_bucket_are_mixed_at_random():
    """Over many epochs, two texts of one bucket share a batch as often as by chance."""
    lengths = np.full(40, 3)
    together = sum(
        any({0, 1} <= set(rows) for rows in plan_epoch(lengths, 10, BUCKETS, rng))
        for rng in map(np.random.default_rng, range(2000))
    )
    assert abs(together / 2000 - 9 / 39) < 0.04


def test_evaluation_reads_every_text_once_longest_first():
    ids, labels = make()
    batches = list(eval_batches(ids, labels, batch_size=10, bucket_lengths=BUCKETS))
    rows = np.concatenate([b.rows for b in batches])
    assert sorted(rows[rows >= 0]) == list(range(len(ids)))
    lengths = np.array([len(x) for x in ids])
    assert (np.diff(lengths[np.concatenate(plan_by_length(lengths, 10))]) <= 0).all()


def test_a_text_longer_than_the_last_bucket_is_refused():
    with pytest.raises(ValueError, match="bucket_lengths: the last is 16, a row has 17"):
        batches_of([np.ones(17, np.int32)], np.zeros(1))
