"""How far an accuracy can be trusted: over reviews, over seeds, and against another system."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


def bootstrap_interval(
    correct: Bool[np.ndarray, "*seeds reviews"],
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The bootstrap percentile interval of an accuracy, over reviews (Efron and Tibshirani 1993, ch. 13).

    Reviews are drawn anew with replacement, as many as there are. Of several seeds a review is drawn with
    the answers of all of them: the interval is that of the seeds' mean accuracy on other reviews, and says
    nothing about other seeds (`spread` does).

    Args:
      correct: whether each review was classified rightly; [reviews], or [seeds, reviews].
      resamples: how many times the reviews are drawn.
      level: the share of resamples inside the interval.
      seed: fixes the draws.

    Returns:
      (low, high), both between 0 and 1.

    Raises:
      ValueError: there are no reviews.

    Example:
      >>> bootstrap_interval(np.arange(100) < 89)
      (0.83, 0.95)
    """
    correct = np.atleast_2d(np.asarray(correct, bool))
    if not correct.size:
        raise ValueError(f"correct has shape {correct.shape}; expected at least one review")
    seeds, reviews = correct.shape
    # Only how many reviews k of the seeds got right matters for the mean, for k = 0 to seeds; in a
    # resample these counts are multinomial, so that no resample needs to be built.
    counts = np.bincount(correct.sum(0), minlength=seeds + 1)
    drawn = np.random.default_rng(seed).multinomial(reviews, counts / reviews, size=resamples)
    accuracies = drawn @ np.arange(seeds + 1) / (seeds * reviews)
    low, high = np.quantile(accuracies, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(
    values: Float[np.ndarray, "*seeds reviews"],
    *,
    resamples: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """As `bootstrap_interval`, of the mean of any figure of reviews: a loss, or a difference of two systems.

    Differences of two systems on the same reviews make a paired bootstrap: what is hard for both cancels.

    Args:
      values: of each review; [reviews], or [seeds, reviews].
      resamples, level, seed: as there.

    Returns:
      (low, high), in the unit of `values`.

    Raises:
      ValueError: there are no reviews.

    Example:
      >>> mean_interval(np.ones(10))
      (1.0, 1.0)
    """
    values = np.atleast_2d(np.asarray(values, float))
    if not values.size:
        raise ValueError(f"values have shape {values.shape}; expected at least one review")
    of_review = values.mean(0)
    rng = np.random.default_rng(seed)
    n = len(of_review)
    means = [of_review[rng.integers(n, size=n)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def spread(accuracies: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation over seeds; None for the latter where there is one seed.

    Raises:
      statistics.StatisticsError: there is none.

    Example:
      >>> spread([0.75, 0.5, 1.0])
      (0.75, 0.25)
      >>> spread([0.88])
      (0.88, None)
    """
    return statistics.mean(accuracies), (
        statistics.stdev(accuracies) if len(accuracies) > 1 else None
    )


class McNemar(NamedTuple):
    """McNemar's test of two systems on the same reviews."""

    only_first: int  # reviews that only the first got right
    only_second: int
    p_value: float  # two-sided


def mcnemar(first: Bool[np.ndarray, "reviews"], second: Bool[np.ndarray, "reviews"]) -> McNemar:
    """McNemar's test, exact (McNemar 1947): do two systems err equally often?

    Only the reviews count on which one is right and the other wrong. Were the systems equally good, either
    would be the right one with probability 1/2; the p-value is the binomial test's.

    Args:
      first, second: whether each review was classified rightly, in the same order.

    Raises:
      ValueError: they differ in length.

    Example:
      >>> first = np.array([True] * 9 + [False] * 1 + [True] * 90)
      >>> second = np.array([False] * 9 + [True] * 1 + [True] * 90)
      >>> mcnemar(first, second)  # p = 2 * (1 + 10) / 2**10
      McNemar(only_first=9, only_second=1, p_value=0.021484375)
    """
    from scipy.stats import binomtest  # 0.6 s, which every run would wait for

    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"shapes {first.shape} and {second.shape}; expected the same [reviews]")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p)
