"""A look at a data set before training: figures of its parts, and what is likely to be wrong with it."""

from __future__ import annotations

import collections
import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from bahdanau_jax.data.dataset import Dataset, Examples, take
from bahdanau_jax.data.hold_out import hashes_of
from bahdanau_jax.errors import InputError
from bahdanau_jax.token_ids import UNKNOWN

_SAMPLE = 1_000  # texts whose letters are looked at
_LETTERS = 1_000  # of each
_SHOWN = 5
# Scripts, as Unicode's names of letters begin, that are written without spaces between words.
_WITHOUT_SPACES = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}


@dataclasses.dataclass(frozen=True)
class PartLook:
    """Figures of a part.

    Attributes:
      counts: int [classes], number of texts of each class.
      copies: texts that are copies of an earlier one.
      in_train: texts that are also in train; 0 for train.
      lengths: int [n], words of each text.
      known: share of the words that are in the vocabulary, or None if there are no words.
    """

    counts: np.ndarray
    copies: int
    in_train: int
    lengths: np.ndarray
    known: float | None


SPLIT_AT_SPACES = ("words", "marks")  # the tokenizers that need spaces


def warnings_of(dataset: Dataset, tokenizer: str = "words") -> list[str]:
    """Returns a line for each likely fault. The test split is looked at only if it has been read.

    Args:
      dataset: the data set.
      tokenizer: `config.tokenizer.name`.

    Example:
      >>> examples = Examples(["dull", "fine", "good"], np.array([0, 1, 1]), ["0", "1", "2"])
      >>> part = examples.take([1])
      >>> warnings_of(Dataset("x", ("neg", "pos"), examples.take([0, 2]), part, lambda: part, ""))[0]
      'warning: classes with a single text, kept in train and never tested: neg'
    """
    names, parts = dataset.label_names, _known_parts(dataset)
    counts = {part: _counts(examples, names) for part, examples in parts.items()}
    found = [f"{part} is empty" for part, examples in parts.items() if not len(examples)]
    if len(names) == 1:
        found.append(f"a single class, {names[0][:20]}; training needs two or more")
    total = np.sum(list(counts.values()), axis=0)
    if (total == 1).any():
        found.append(
            f"classes with a single text, kept in train and never tested: {_list(names, total == 1)}"
        )
    for part, count in counts.items():
        lacks = (count == 0) & (total > 1)
        if count.any() and lacks.any():
            found.append(
                f"{part} lacks {lacks.sum():,} of {len(names):,} classes: {_list(names, lacks)}"
            )
    alike = collections.defaultdict(list)
    for name in names:
        alike[" ".join(name.casefold().split())].append(name)
    found += [
        f"the labels {' and '.join(map(repr, same))} differ only by case or blanks"
        for same in alike.values()
        if len(same) > 1
    ]
    found += _repeated(parts)
    scripts = scripts_of(dataset.train.texts)
    unspaced = {name: share for name, share in scripts.items() if name in _WITHOUT_SPACES}
    if tokenizer in SPLIT_AT_SPACES and sum(unspaced.values()) > 0.3:
        found.append(
            f"{sum(unspaced.values()):.0%} of the letters ({', '.join(unspaced).lower()}) are written without "
            'spaces between words, so whole clauses count as words; set config.tokenizer.name="characters"'
        )
    return [f"warning: {line}" for line in found]


def check_trainable(dataset: Dataset) -> None:
    """Checks that there are two classes, and that no part that has been read is empty.

    Raises:
      InputError: otherwise.
    """
    names = dataset.label_names
    if len(names) < 2:
        raise InputError(
            f"{dataset.name} has {len(names)} class ({', '.join(names)}); expected labels of 2 or more"
        )
    for part, examples in _known_parts(dataset).items():
        if not len(examples):
            total = sum(map(len, _known_parts(dataset).values()))
            raise InputError(
                f"the {part} part of {dataset.name} is empty: {total:,} texts of {len(names):,} classes do not "
                "suffice to cut it out, since each class keeps a text in train and copies stay together; "
                f"expected more texts that differ, or config.data.{part}_path"
            )


def look(dataset: Dataset, encode) -> dict[str, PartLook]:
    """Returns figures of each part. Reads all texts, those of the test split too.

    Args:
      dataset: the data set.
      encode: from a text to its ids, as `Vocabulary.encode`.
    """
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.read_test()}
    train = hashes_of(dataset.train.texts)
    looks = {}
    for part, examples in parts.items():
        hashes = hashes_of(examples.texts)
        lengths, unknown = np.zeros(len(examples), int), 0
        for i, text in enumerate(examples.texts):
            ids = encode(text)
            lengths[i], unknown = len(ids) - 1, unknown + int(np.count_nonzero(ids == UNKNOWN))
        words = lengths.sum()
        looks[part] = PartLook(
            counts=_counts(examples, dataset.label_names),
            copies=len(hashes) - len(np.unique(hashes)),
            in_train=0 if part == "train" else int(np.isin(hashes, train).sum()),
            lengths=lengths,
            known=float(1 - unknown / words) if words else None,
        )
    return looks


def scripts_of(texts: Sequence[str]) -> dict[str, float]:
    """Returns the share of each script among the letters of some texts, largest first.

    Example:
      >>> scripts_of(["ab, пр", "好"])
      {'LATIN': 0.4, 'CYRILLIC': 0.4, 'CJK': 0.2}
    """
    rows = np.unique(np.linspace(0, len(texts) - 1, min(_SAMPLE, len(texts)), dtype=int))
    letters: collections.Counter[str] = collections.Counter()
    for text in take(texts, rows):
        letters.update(filter(str.isalpha, text[:_LETTERS]))
    scripts: collections.Counter[str] = collections.Counter()
    for letter, count in letters.items():
        scripts[unicodedata.name(letter, "OTHER").split()[0]] += count
    total = scripts.total()
    return {script: count / total for script, count in scripts.most_common()}


def _known_parts(dataset: Dataset) -> dict[str, Examples]:
    parts = {"train": dataset.train, "validation": dataset.validation}
    return parts if dataset.known_test is None else parts | {"test": dataset.known_test}


def _counts(examples: Examples, names: Sequence[str]) -> np.ndarray:
    return np.bincount(examples.labels, minlength=len(names))[: len(names)]


def _repeated(parts: dict[str, Examples]) -> Iterable[str]:
    """Lines about texts that repeat, within parts and across."""
    train, labels = hashes_of(parts["train"].texts), parts["train"].labels
    ordered = np.sort(train)
    copies = int((ordered[1:] == ordered[:-1]).sum())
    if copies:
        _, first, inverse = np.unique(train, return_index=True, return_inverse=True)
        other = int((labels != labels[first][inverse]).sum())
        disagree = f", {other:,} of them with another label" if other else ""
        yield f"texts of train that repeat an earlier one: {copies:,}{disagree}"
    for part, examples in list(parts.items())[1:]:
        hashes = np.sort(hashes_of(examples.texts))
        places = np.searchsorted(ordered, hashes)  # as np.isin, in a tenth of its time
        shared = int((ordered[np.minimum(places, len(ordered) - 1)] == hashes).sum())
        if shared:
            yield f"texts of {part} that are also in train: {shared:,}; figures on {part} will be too good"


def _list(names: Sequence[str], chosen: np.ndarray) -> str:
    found = [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]
    shown = ", ".join(name[:20] for name in found[:_SHOWN])
    return shown + (f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else "")
