"""Chooses by their hash the texts that are held out of train, so that their order does not matter."""

import collections
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from bahdanau_jax.data.dataset import Examples
from bahdanau_jax.errors import InputError


def check_size(field: str, size: int, available: int) -> None:
    """Checks that `size` texts can be held out and at least one is left.

    Raises:
      InputError: they cannot.
    """
    if not 1 <= size < available:
        raise InputError(f"{field} is {size}; expected 1 to {available - 1} of {available} reviews")


def split_by_hash(
    examples: Examples, size: int, field: str, fold: int = 0
) -> tuple[Examples, Examples]:
    """Holds out the `size` texts with the smallest hashes, see `choose_by_hash`.

    Args:
      examples: the examples to split.
      size: number of texts to hold out. 0: a tenth.
      field: the config's field that holds the size, for the message.
      fold: which so many texts: fold 1 has none of those of fold 0, and so on.

    Returns:
      the rest, and the examples held out.

    Raises:
      InputError: the size is negative or leaves nothing, or there is no such fold.
    """
    size, hashes = size or tenth(len(examples)), hashes_of(examples.texts)
    check_size(field, size, len(examples))
    held_out = rows_of_fold(len(examples), fold, lambda rows: choose_by_hash(hashes[rows], size))
    return examples.take(np.flatnonzero(~held_out)), examples.take(np.flatnonzero(held_out))


def rows_of_fold(n: int, fold: int, choose: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Holds out the rows that `choose` chooses of those that its earlier choices left.

    Args:
      n: number of rows.
      fold: number of earlier choices.
      choose: takes rows int [k] and returns bool [k], True for those to hold out.

    Returns:
      bool [n], True for the rows held out.

    Raises:
      InputError: the earlier choices leave nothing.

    Example:
      >>> rows_of_fold(5, 1, lambda rows: np.arange(len(rows)) < 2)
      array([False, False,  True,  True, False])
    """
    left, held_out = np.arange(n), np.arange(0)
    for i in range(fold + 1):
        chosen = choose(left) if len(left) else np.zeros(0, bool)
        held_out, left = left[chosen], left[~chosen]
        if i and not len(held_out):
            raise InputError(
                f"config.data.validation_fold is {fold}; expected less than {i}, since {n:,} texts have no "
                "more folds of config.data.validation_size"
            )
    return np.isin(np.arange(n), held_out)


def refuse_fold(fold: int) -> None:
    """Refuses another fold than the first where validation is not taken out of train.

    Raises:
      InputError: the fold is not 0.
    """
    if fold:
        raise InputError(
            f"config.data.validation_fold is {fold}; expected 0, since validation is not taken out of train"
        )


def tenth(n: int) -> int:
    """Returns how many of n texts are held out if no size is given."""
    return max(1, n // 10)


def hash_of(text: str) -> int:
    """Returns 64 bits of the text's BLAKE2b hash.

    Example:
      >>> hash_of("A fine film.") == hash_of("A fine film."), hash_of("A") < 2**64
      (True, True)
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big")


def hashes_of(texts: Sequence[str]) -> np.ndarray:
    """Returns uint64 [n], the hash of each text; of texts that keep theirs without reading them."""
    kept = getattr(texts, "hashes", None)
    return kept if kept is not None else np.fromiter(map(hash_of, texts), np.uint64, len(texts))


def choose_by_hash(hashes: np.ndarray, size: int) -> np.ndarray:
    """Chooses the `size` texts with the smallest hashes.

    The choice depends on the texts alone, not on their order. Copies of a text stay together: if a group of
    copies does not fit, it is skipped.

    Args:
      hashes: uint64 [n], one per text.
      size: number of texts to choose, if there are so many.

    Returns:
      bool [n], True for the chosen texts.

    Example:
      >>> choose_by_hash(np.array([7, 3, 9, 3], np.uint64), 3)
      array([ True,  True, False,  True])
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    chosen, left = np.zeros(len(hashes), bool), size
    for start, end in zip(first, [*first[1:], len(order)], strict=True):
        if end - start <= left:
            chosen[order[start:end]] = True
            left -= end - start
        if not left:
            break
    return chosen


def choose_by_class(
    hashes: np.ndarray,
    labels: np.ndarray,
    size: int,
    groups: np.ndarray | None = None,
    others: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
    """Chooses about `size` texts with the smallest hashes, each class by its share.

    The choice depends on the texts alone, not on their order. Copies of a text stay together, and each class
    keeps a text that is not chosen. Groups are chosen whole, until there are `size` texts.

    Args:
      hashes: uint64 [n], one per text.
      labels: int [n], the classes.
      size: number of texts to choose.
      groups: uint64 [n], one per group. None: no groups.
      others: the classes of other texts that are not chosen anyway.

    Returns:
      bool [n], True for the chosen texts.

    Example:
      >>> choose_by_class(np.array([7, 3, 9, 1], np.uint64), np.array([0, 0, 1, 1]), 2)
      array([False,  True, False,  True])
    """
    keys = hashes if groups is None else _joined(hashes, groups)
    counts = np.bincount(labels, minlength=1)
    kept = ~np.isin(np.arange(len(counts)), others)
    most = np.maximum(counts - kept, 0)
    if groups is None:
        shares = size * counts / max(counts.sum(), 1)
        quota = np.floor(shares).astype(int)
        quota[np.argsort(quota - shares, kind="stable")[: size - quota.sum()]] += 1
        most = np.minimum(most, quota)
    order = np.argsort(keys)
    ends = np.flatnonzero(np.r_[keys[order][1:] != keys[order][:-1], True]) + 1
    left, ordered, begin = most.tolist(), labels[order].tolist(), 0
    room = min(size, int(most.sum()))
    found: list[int] = []
    for end in ends.tolist():
        start, begin = begin, end
        if end == start + 1:  # as nearly always
            if left[ordered[start]]:
                left[ordered[start]] -= 1
                found.append(start)
        else:
            needed = collections.Counter(ordered[start:end])
            if all(left[label] >= count for label, count in needed.items()):
                for label, count in needed.items():
                    left[label] -= count
                found += range(start, end)
        if len(found) >= room:
            break
    chosen = np.zeros(len(keys), bool)
    chosen[order[found]] = True
    return chosen


def _joined(hashes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The smallest hash of a group in each set of rows that groups and copies connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, texts = np.unique(hashes, return_inverse=True)
    _, names = np.unique(groups, return_inverse=True)
    n = len(names)
    edges = coo_array((np.ones(n, bool), (texts, names + n)), shape=(2 * n, 2 * n))
    _, component = connected_components(edges, directed=False)
    smallest = np.full(2 * n, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, component[texts], groups)
    return smallest[component[texts]]
