"""Intervals and tests against plain resampling, SciPy, and counting by hand."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bahdanau_jax.evaluation.significance import bootstrap_interval, mcnemar, mean_interval, spread


def test_the_interval_agrees_with_scipy():
    rng = np.random.default_rng(1)
    correct = rng.random(300) < 0.85
    theirs = stats.bootstrap(
        (correct,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    ours = bootstrap_interval(correct, resamples=20_000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1.01 / 300)


def test_the_interval_over_seeds_draws_each_review_with_all_its_answers():
    rng = np.random.default_rng(1)
    hard = rng.random(200) < 0.3
    correct = np.where(hard, rng.random((3, 200)) < 0.5, True)
    rows = rng.integers(200, size=(10_000, 200))
    drawn = correct[:, rows].mean(axis=(0, 2))
    wanted = tuple(np.quantile(drawn, [0.025, 0.975]))
    assert bootstrap_interval(correct) == pytest.approx(wanted, abs=0.005)
    # Three copies of the same answers are not more reviews.
    same = np.stack([correct[0]] * 3)
    assert bootstrap_interval(same) == pytest.approx(bootstrap_interval(correct[0]), abs=0.006)


def test_the_interval_of_a_mean_agrees_with_scipy_and_with_the_accuracy_s():
    rng = np.random.default_rng(1)
    values = rng.gamma(0.5, size=300)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    ours = mean_interval(values, resamples=20_000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)
    correct = rng.random((3, 200)) < 0.8
    assert mean_interval(correct) == pytest.approx(bootstrap_interval(correct), abs=0.006)
    assert mean_interval(correct) == mean_interval(correct.mean(0))
    with pytest.raises(ValueError, match="at least one review"):
        mean_interval(np.zeros((2, 0)))


def test_the_interval_agrees_with_the_normal_approximation_at_imdb_s_size():
    correct = np.arange(25_000) < 22_000
    half = 1.96 * np.sqrt(0.88 * 0.12 / 25_000)
    low, high = bootstrap_interval(correct)
    assert (low, high) == pytest.approx((0.88 - half, 0.88 + half), abs=2e-4)


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_the_interval_contains_the_accuracy_and_is_reproducible(correct):
    low, high = bootstrap_interval(np.array(correct), resamples=500)
    assert 0 <= low <= np.mean(correct) <= high <= 1
    assert bootstrap_interval(np.array(correct), resamples=500) == (low, high)
    assert bootstrap_interval(np.array(correct)[::-1], resamples=500) == (low, high)


def test_a_higher_level_gives_a_wider_interval():
    correct = np.arange(100) < 80
    (low, high), (lower, higher) = (bootstrap_interval(correct, level=x) for x in (0.5, 0.99))
    assert lower < low < high < higher


def test_without_reviews_there_is_no_interval():
    with pytest.raises(ValueError, match="at least one review"):
        bootstrap_interval(np.zeros((3, 0), bool))


def test_spread_agrees_with_numpy():
    values = [0.8845, 0.8849, 0.8816]
    assert spread(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert spread([0.5]) == (0.5, None)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5), st.integers(0, 5))
def test_mcnemar_agrees_with_counting_coin_tosses(only_first, only_second, both, none):
    outcomes = [(1, 0)] * only_first + [(0, 1)] * only_second + [(1, 1)] * both + [(0, 0)] * none
    first, second = np.array(outcomes, bool).reshape(-1, 2).T
    got = mcnemar(first, second)
    assert (got.only_first, got.only_second) == (only_first, only_second)
    n, few = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(n, i) for i in range(few + 1)) / 2**n
    assert got.p_value == pytest.approx(min(1, 2 * tail))
    assert mcnemar(second, first).p_value == got.p_value


def test_mcnemar_agrees_with_all_outcomes_of_five_coins():
    """5 of 5 for one side: as unlikely as five heads or five tails."""
    p = mcnemar(np.ones(5, bool), np.zeros(5, bool)).p_value
    extreme = [sum(coins) in (0, 5) for coins in product((0, 1), repeat=5)]
    assert p == np.mean(extreme)


def test_mcnemar_agrees_with_edwards_approximation():
    """Large counts: chi-squared with continuity correction, (|b - c| - 1)^2 / (b + c)."""
    first = np.r_[np.ones(500, bool), np.zeros(430, bool), np.ones(20_000, bool)]
    second = np.r_[np.zeros(500, bool), np.ones(430, bool), np.ones(20_000, bool)]
    approximate = stats.chi2.sf((500 - 430 - 1) ** 2 / 930, df=1)
    assert mcnemar(first, second).p_value == pytest.approx(approximate, rel=0.01)


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((2, 3), (2, 3))])
def test_mcnemar_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match=r"expected the same \[reviews\]"):
        mcnemar(*(np.ones(shape, bool) for shape in shapes))
