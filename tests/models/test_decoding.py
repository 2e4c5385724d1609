"""Greedy decoding and beam search against the enumeration of all sequences of a small vocabulary."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bahdanau_jax.models.decoding import beam_search, greedy
from bahdanau_jax.token_ids import END, PAD, START

VOCAB, STEPS, ROWS = 6, 3, 12
TABLE = np.random.default_rng(0).normal(size=(ROWS, STEPS, VOCAB, VOCAB))  # [row, step, last, next]
# The next id depends on the row, the step and the last id, all of which the state or the ids carry.
LOG_PROBABILITIES = jax.nn.log_softmax(jnp.asarray(TABLE, jnp.float32).at[..., PAD].set(-jnp.inf))


def step(state, ids):
    row, time = state
    return LOG_PROBABILITIES[row, time, ids], (row, time + 1)


STATE = jnp.arange(ROWS), jnp.zeros(ROWS, int)


def enumerate_all(row, length_penalty):
    """Every sequence that a decoder can write, best first, with its score."""
    found = []
    for ids in itertools.product(range(1, VOCAB), repeat=STEPS):
        if END in ids[:-1]:
            continue
        found.append(ids)
    for length in range(1, STEPS):
        for ids in itertools.product([i for i in range(1, VOCAB) if i != END], repeat=length - 1):
            found.append((*ids, END))
    scored = []
    for ids in found:
        score = sum(
            float(LOG_PROBABILITIES[row, t, last, i])
            for t, (last, i) in enumerate(zip((START, *ids), ids, strict=False))
        )
        scored.append((score / len(ids) ** length_penalty, (*ids, *[PAD] * (STEPS - len(ids)))))
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("length_penalty", [0.0, 0.7])
@pytest.mark.slow
def test_a_beam_that_holds_everything_finds_what_enumeration_finds(length_penalty):
    beams = 5 + 4 * 5 + 4 * 4 * 5  # more than all beginnings
    ids, scores = jax.jit(
        partial(
            beam_search, step, rows=ROWS, steps=STEPS, beams=beams, length_penalty=length_penalty
        )
    )(STATE)
    for row in range(ROWS):
        want = enumerate_all(row, length_penalty)
        np.testing.assert_allclose(scores[row, : len(want)], [s for s, _ in want], atol=1e-5)
        assert [tuple(x) for x in ids[row, :10].tolist()] == [x for _, x in want[:10]]
        assert (scores[row, len(want) :] == -jnp.inf).all()


@pytest.mark.slow
def test_one_beam_is_greedy_and_more_are_no_worse():
    search = jax.jit(partial(beam_search, step, rows=ROWS, steps=STEPS), static_argnames="beams")
    ids, scores = greedy(step, STATE, rows=ROWS, steps=STEPS)
    one_ids, one_scores = search(STATE, beams=1)
    np.testing.assert_array_equal(one_ids[:, 0], ids)
    np.testing.assert_allclose(one_scores[:, 0], scores, atol=1e-6)
    best = [enumerate_all(row, 0.0)[0][0] for row in range(ROWS)]
    _, three = search(STATE, beams=3)
    assert (three[:, 0] >= scores - 1e-5).all() and (three[:, 0] <= np.add(best, 1e-5)).all()
    assert (np.diff(three) <= 0).all()
    assert (scores < np.subtract(best, 1e-3)).any()  # greedy misses the best somewhere


def test_nothing_follows_the_end():
    ids, _ = greedy(step, STATE, rows=ROWS, steps=STEPS)
    ids = np.asarray(ids)
    for row in ids:
        ends = np.flatnonzero(row == END)
        if len(ends):
            assert (row[ends[0] + 1 :] == PAD).all()
    assert (ids == END).any()
