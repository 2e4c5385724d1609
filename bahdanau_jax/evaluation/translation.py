"""How good translations are: exact match and BLEU (Papineni et al. 2002), also by length."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bahdanau_jax.errors import InputError

_MOST_ROWS = 12


def figures(
    written: Sequence[str],
    targets: Sequence[str],
    *,
    tokens: str,
    length: Callable[[str], int],
) -> dict[str, Any]:
    """Exact match and BLEU of translations.

    Args:
      written: the translations.
      targets: what they should be; at least one.
      tokens: "characters" or "words", of which BLEU's n-grams consist. Words are cut by sacrebleu's rule 13a.
      length: of a target, in tokens.

    Returns:
      `n`, `exact` (the share that equals its target), `bleu` (0 to 100) and `by_length`: the same for targets
      of `shortest` to `longest` tokens.

    Raises:
      InputError: sacrebleu is not installed.

    Example:
      >>> found = figures(["abcd", "x"], ["abcd", "y"], tokens="characters", length=len)
      >>> found["exact"], [(row["longest"], row["exact"]) for row in found["by_length"]]
      (0.5, [(1, 0.0), (4, 1.0)])
    """
    lengths = np.array([length(target) for target in targets])
    by_length = []
    for group in _groups(lengths):
        chosen: list[int] = group.tolist()
        some = [written[i] for i in chosen], [targets[i] for i in chosen]
        ends = {"shortest": int(lengths[group].min()), "longest": int(lengths[group].max())}
        by_length.append(ends | _figures(*some, tokens))
    return _figures(written, targets, tokens) | {"by_length": by_length}


def _figures(written: Sequence[str], targets: Sequence[str], tokens: str) -> dict[str, Any]:
    exact = np.mean([a == b for a, b in zip(written, targets, strict=True)])
    return {"n": len(targets), "exact": float(exact), "bleu": bleu(written, targets, tokens)}


def bleu(written: Sequence[str], targets: Sequence[str], tokens: str) -> float:
    """Corpus BLEU by sacrebleu, 0 to 100."""
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise InputError(
            "BLEU needs sacrebleu, which is not installed; expected pip install 'bahdanau-jax[seq2seq]'"
        ) from error
    cut = "char" if tokens == "characters" else "13a"
    # Where all targets are shorter than four tokens, BLEU is that of the n-grams that they have.
    found = sacrebleu.corpus_bleu(
        written, [targets], tokenize=cut, force=True, use_effective_order=True
    )
    return found.score


def _groups(lengths: np.ndarray) -> list[np.ndarray]:
    """Positions of each length; where there are many lengths, of ranges that hold about as many."""
    order = np.argsort(lengths, kind="stable")
    found = np.unique(lengths)
    ends = found[1:]
    if len(found) > _MOST_ROWS:
        ends = np.unique(np.quantile(lengths, np.arange(1, _MOST_ROWS) / _MOST_ROWS).astype(int))
    groups = np.split(order, np.searchsorted(lengths[order], ends))
    return [group for group in groups if len(group)]
