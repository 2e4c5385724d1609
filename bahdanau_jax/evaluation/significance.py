"""Uncertainty of an accuracy: over reviews, over seeds, and against another system."""

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
    """Returns the bootstrap percentile interval of an accuracy, over reviews.

    Each resample draws as many reviews, with replacement (Efron and Tibshirani 1993, chapter 13). With several
    seeds, a drawn review brings the answers of all of them. The interval is then that of the seeds' mean
    accuracy on other reviews; it does not cover other seeds (see `spread`).

    Args:
      correct: whether each review was classified correctly; [reviews], or [seeds, reviews].
      resamples: number of resamples.
      level: share of the resamples inside the interval.
      seed: of the random draws.

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
    # The mean depends only on how many reviews k of the seeds got right, for k = 0 to seeds. In a resample
    # these counts are multinomial, so no resample needs to be built.
    counts = np.bincount(correct.sum(0), minlength=seeds + 1)
    drawn = np.random.default_rng(seed).multinomial(reviews, counts / reviews, size=resamples)
    return _percentiles(drawn @ np.arange(seeds + 1) / (seeds * reviews), level)


def mean_interval(
    values: Float[np.ndarray, "*seeds reviews"],
    *,
    resamples: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the bootstrap percentile interval of a mean over reviews, such as a loss.

    The differences of two systems on the same reviews make a paired bootstrap: what is hard for both cancels.

    Args:
      values: of each review; [reviews], or [seeds, reviews].
      resamples, level, seed: as in `bootstrap_interval`.

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
    from scipy.stats import bootstrap  # takes half a second to import

    of_review = values.mean(0)
    if np.ptp(of_review) == 0:  # scipy warns of a distribution without width
        return float(of_review[0]), float(of_review[0])
    interval = bootstrap(
        (of_review,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 2**17 // len(of_review)),  # fits into a core's cache
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _percentiles(resampled: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def spread(accuracies: Sequence[float]) -> tuple[float, float | None]:
    """Returns mean and sample standard deviation over seeds; None as deviation of a single seed.

    Raises:
      statistics.StatisticsError: the sequence is empty.

    Example:
      >>> spread([0.75, 0.5, 1.0])
      (0.75, 0.25)
      >>> spread([0.88])
      (0.88, None)
    """
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    return statistics.mean(accuracies), deviation


class McNemar(NamedTuple):
    """Result of McNemar's test of two systems on the same reviews."""

    only_first: int  # reviews that only the first classified correctly
    only_second: int
    p_value: float  # two-sided


def mcnemar(first: Bool[np.ndarray, "reviews"], second: Bool[np.ndarray, "reviews"]) -> McNemar:
    """Tests whether two systems err equally often, with McNemar's exact test (McNemar 1947).

    Only reviews on which exactly one system is right count. If the systems are equally good, either one is
    right with probability 1/2, so the p-value is that of the binomial test.

    Args:
      first, second: whether each review was classified correctly, in the same order.

    Raises:
      ValueError: the two differ in shape.

    Example:
      >>> first = np.array([True] * 9 + [False] * 1 + [True] * 90)
      >>> second = np.array([False] * 9 + [True] * 1 + [True] * 90)
      >>> mcnemar(first, second)  # p = 2 * (1 + 10) / 2**10
      McNemar(only_first=9, only_second=1, p_value=0.021484375)
    """
    from scipy.stats import binomtest  # takes 0.6 s to import, which no run should wait for

    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"shapes {first.shape} and {second.shape}; expected the same [reviews]")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p)
