"""Strings of digits to reverse or to sort."""

from collections.abc import Mapping

import numpy as np

from bahdanau_jax.data.pairs import PairData, Pairs


def make_digits(
    task: str, sizes: Mapping[str, int], lengths: tuple[int, int, int], *, seed: int
) -> PairData:
    """Makes strings of digits, and what becomes of them.

    Args:
      task: "reverse" or "sort".
      sizes: number of strings of "train", "validation" and "test".
      lengths: least and most digits of a string, and the most of test.
      seed: the same seed gives the same strings.

    Example:
      >>> pairs = make_digits("sort", dict(train=1, validation=1, test=1), (4, 4, 4), seed=0).train
      >>> pairs.targets == ["".join(sorted(pairs.sources[0]))]
      True
    """
    shortest, longest, test_longest = lengths

    def make(split: int, size: int, longest: int) -> Pairs:
        rng = np.random.default_rng([seed, split])
        sources = [
            "".join(map(str, rng.integers(0, 10, length)))
            for length in rng.integers(shortest, longest + 1, size)
        ]
        return Pairs(
            sources, [x[::-1] if task == "reverse" else "".join(sorted(x)) for x in sources]
        )

    return PairData(
        make(0, sizes["train"], longest),
        make(1, sizes["validation"], longest),
        make(2, sizes["test"], test_longest),
        f"new strings of {shortest} to {test_longest} digits",
    )
