"""Makes a small archive like aclImdb_v1.tar.gz, and checks the properties that every data set has."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.data import imdb_download
from bahdanau_jax.data.dataset import Dataset, Examples

# The folder and files that TFDS makes.
VERSION = "imdb_reviews/plain_text/1.0.0"
TRAIN = "imdb_reviews-train.array_record-00000-of-00001"
TEST = "imdb_reviews-test.array_record-00000-of-00001"
UNLABELLED = "imdb_reviews-unsupervised.array_record-00000-of-00001"

REVIEWS = 20  # of each class in each split, and twice as many unlabelled ones


def small_reviews() -> dict[str, bytes]:
    """Returns the content of each file of the archive by its name."""
    reviews = {}
    for folder, count in (
        ("test/neg", REVIEWS),
        ("test/pos", REVIEWS),
        ("train/neg", REVIEWS),
        ("train/pos", REVIEWS),
        ("train/unsup", 2 * REVIEWS),
    ):
        for i in range(count):
            name = f"aclImdb/{folder}/{i}_3.txt"
            reviews[name] = f"Review {i} of {folder}.<br />Été, really! ".encode()
    return reviews


def write_archive(path: Path, reviews: dict[str, bytes]) -> dict[str, Any]:
    """Writes the archive; returns the size and sha256 to pass to `prepare`."""
    files = {"aclImdb/README": b"made up", "aclImdb/train/urls_neg.txt": b"no review", **reviews}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    content = path.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def prepare_small(folder: Path, reviews: dict[str, bytes] | None = None) -> Path:
    """Prepares the small reviews; returns the TFDS data folder."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "small.tar.gz"
    expected = write_archive(archive, reviews or small_reviews())
    imdb_download.prepare(folder / "tfds", archive=archive, **expected)
    return folder / "tfds"


def check_examples(examples: Examples, label_names: tuple[str, ...]) -> None:
    assert len(examples.texts) == len(examples.labels) == len(examples.ids) == len(examples)
    assert all(type(text) is str for text in examples.texts)
    assert examples.labels.dtype == np.int32
    assert len(examples) == 0 or 0 <= examples.labels.min() <= examples.labels.max()
    assert len(examples) == 0 or examples.labels.max() < len(label_names)
    assert len(set(examples.ids)) == len(examples)


def check_dataset(dataset: Dataset) -> Examples:
    """Checks a data set; returns its test split."""
    test = dataset.read_test()
    for examples in (dataset.train, dataset.validation, test):
        check_examples(examples, dataset.label_names)
    assert not set(dataset.train.texts) & set(dataset.validation.texts)
    assert not set(dataset.train.ids) & set(dataset.validation.ids)
    again = dataset.read_test()
    assert (again.texts, again.ids) == (test.texts, test.ids)
    return test
