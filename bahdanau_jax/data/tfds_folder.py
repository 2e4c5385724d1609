"""Finds, checks and reads a folder that TFDS prepared, without TensorFlow."""

import json
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.data.dataset import Examples
from bahdanau_jax.errors import InputError, one_line

_REPAIR = "half-prepared or damaged, or of another version of TFDS; without this folder it is prepared again"


def find_prepared(root: Path, name: str) -> Path | None:
    """Returns the folder of the newest prepared version of a data set, or None.

    Args:
      root: TFDS's data folder.
      name: TFDS's name of the data set, with or without config and version.

    Raises:
      InputError: `root` is a file, `name` is not a TFDS name, or several configs of it are prepared.

    Example::

        find_prepared(root, "imdb_reviews")         # root/imdb_reviews/plain_text/1.0.0
        find_prepared(root, "glue/sst2:2.0.0")      # root/glue/sst2/2.0.0
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file; expected the folder that holds TFDS's data sets")
    base, _, version = name.partition(":")
    if not re.fullmatch(r"\w+(/[\w.-]+)?", base, re.ASCII):
        raise InputError(f"{name!r} is not a TFDS data set's name; expected one like imdb_reviews")
    found = []
    # name/version or name/config/version. An interrupted preparation leaves "incomplete.*".
    for folder in [*(root / base).glob("*"), *(root / base).glob("*/*")]:
        numbers = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", folder.name, re.ASCII)
        if numbers and version in ("", folder.name):
            found.append((tuple(map(int, numbers.groups())), folder))
    configs = {folder.parent for _, folder in found}
    if len(configs) > 1:
        names = ", ".join(sorted(config.relative_to(root).as_posix() for config in configs))
        raise InputError(f"{root}: {name} is prepared in several configs; name one of {names}")
    return max(found)[1] if found else None


def prepare_by_tfds(root: Path, name: str) -> None:
    """Lets TFDS download a data set and prepare it in array_record format; raises whatever TFDS raises."""
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder: Any = tfds.builder(name, data_dir=root, file_format="array_record")
    builder.download_and_prepare(download_config=config)


def open_prepared(
    root: Path,
    folder: Path,
    *,
    splits: Sequence[str] = ("train", "test"),
    text: str = "text",
    label: str = "label",
) -> "Prepared":
    """Opens a folder that `find_prepared` found, and checks that its splits are complete.

    This checks the number of records in every file. The records themselves are checked when they are read,
    by their checksums.

    Args:
      root: TFDS's data folder.
      folder: the data set's folder in it.
      splits: splits that it must have.
      text, label: names of the features, a Text and a ClassLabel.

    Raises:
      InputError: something is missing, cut short or of another kind; names folder and file.
    """
    info = _read_json(folder / "dataset_info.json")
    _read_json(folder / "features.json")
    file_format = info.get("fileFormat")
    if file_format != "array_record":
        raise InputError(
            f"{folder}: prepared as {file_format}; expected array_record, which is read without "
            "TensorFlow"
        )
    import tensorflow_datasets as tfds

    full_name = f"{folder.parent.relative_to(root).as_posix()}:{folder.name}"
    try:
        builder = tfds.builder(full_name, data_dir=root)
        features: Any = builder.info.features
        shards = {
            split: list(zip(map(Path, found.filepaths), found.shard_lengths, strict=True))
            for split, found in builder.info.splits.items()
        }
    except Exception as error:  # TFDS raises whatever the damaged field led to.
        raise InputError(
            f"{folder}: TFDS cannot open it ({one_line(error)[:300]}); {_REPAIR}"
        ) from error

    found = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    classes = found.get(label)
    if not isinstance(found.get(text), tfds.features.Text) or not isinstance(
        classes, tfds.features.ClassLabel
    ):
        raise InputError(
            f"{folder}: expected the features {text} (Text) and {label} (ClassLabel), found "
            + (", ".join(f"{key} ({type(found[key]).__name__})" for key in found) or "none")
        )
    label_names = tuple(classes.names or map(str, range(classes.num_classes or 0)))
    prepared = Prepared(root, folder, full_name, shards, label_names, text=text, label=label)
    others = [split for split in ("validation", "test") if split in shards]
    for split in dict.fromkeys([*splits, *others]):
        prepared.check(split)
    return prepared


class Prepared:
    """A data set that TFDS prepared, made by `open_prepared`.

    Attributes:
      name: TFDS's name of the data set, without config and version.
      label_names: a name for each class.
      splits: names of its splits.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        full_name: str,
        shards: dict[str, list[tuple[Path, int]]],
        label_names: tuple[str, ...],
        *,
        text: str,
        label: str,
    ):
        self.name, self.label_names = folder.relative_to(root).parts[0], label_names
        self.splits = tuple(shards)
        self._root, self._folder, self._full_name = root, folder, full_name
        self._shards, self._text, self._label = shards, text, label

    def check(self, split: str) -> None:
        """Checks that a split exists and that its files hold all its records.

        Raises:
          InputError: naming folder and file.
        """
        if split not in self._shards:
            raise InputError(
                f"{self._folder}: has no split {split}; it has {', '.join(self.splits) or 'none'}"
            )
        if not sum(length for _, length in self._shards[split]):
            raise InputError(f"{self._folder}: the split {split} holds no records; {_REPAIR}")
        for path, length in self._shards[split]:
            _check_shard(path, length)

    def read(self, split: str) -> Examples:
        """Reads a labelled split.

        Raises:
          InputError: a record is damaged, or a label is outside the classes.
        """
        records, ids, texts = self._read(split)
        labels = np.array([record[self._label] for record in records], np.int64)
        outside = np.flatnonzero((labels < 0) | (labels >= len(self.label_names)))
        if outside.size:
            raise InputError(
                f"{self._folder}: review {ids[outside[0]]} has the label {labels[outside[0]]}; "
                f"expected 0 to {len(self.label_names) - 1} ({', '.join(self.label_names)})"
            )
        return Examples(texts, labels.astype(np.int32), ids)

    def read_texts(self, split: str) -> list[str]:
        """Reads the texts of a split, whatever its labels.

        Raises:
          InputError: the split does not exist, is incomplete or is damaged.
        """
        self.check(split)
        return self._read(split)[2]

    def labelled(self, split: str) -> bool:
        """Whether the first record has a label. In a split without labels all of them are -1."""
        return int(self._fetch(split, 1)[0][self._label]) >= 0

    def _read(self, split: str) -> tuple[list[Any], list[str], list[str]]:
        """Reads the records, ids and texts of a split."""
        records = self._fetch(split)
        ids = [f"{split}/{i}" for i in range(len(records))]
        return records, ids, _decode([record[self._text] for record in records], ids, self._folder)

    def _fetch(self, split: str, most: int | None = None) -> list[Any]:
        import tensorflow_datasets as tfds

        try:
            source: Any = tfds.data_source(
                self._full_name, split=split, data_dir=self._root, download=False
            )
            return source.__getitems__(range(most or len(source)))
        except Exception as error:
            raise InputError(
                f"{self._folder}: cannot read the split {split} ({one_line(error)[:300]}); {_REPAIR}"
            ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path.parent}: {path.name} is missing; {_REPAIR}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path.parent}: cannot read {path.name} ({error}); {_REPAIR}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path.parent}: {path.name} is not a JSON object; {_REPAIR}")
    return content


def _check_shard(path: Path, length: int) -> None:
    from array_record.python.array_record_module import ArrayRecordReader

    if not path.is_file():
        raise InputError(f"{path.parent}: the record file {path.name} is missing; {_REPAIR}")
    # The index is at the file's end, so opening the reader finds a file that is cut short.
    reader = ArrayRecordReader(str(path))
    if not reader.ok():
        raise InputError(
            f"{path.parent}: the record file {path.name} ({path.stat().st_size:,} bytes) is cut "
            f"short or damaged, expected {length:,} records; {_REPAIR}"
        )
    found = reader.num_records()
    reader.close()
    if found != length:
        raise InputError(
            f"{path.parent}: the record file {path.name} holds {found:,} records, "
            f"dataset_info.json says {length:,}; {_REPAIR}"
        )


def _decode(texts: Iterable[bytes], ids: Sequence[str], folder: Path) -> list[str]:
    decoded, bad = [], []
    for text, name in zip(texts, ids, strict=True):
        try:
            decoded.append(text.decode())
        except UnicodeDecodeError:
            decoded.append(text.decode(errors="replace"))
            bad.append(name)
    if bad:
        warnings.warn(
            f"{folder}: {len(bad):,} of {len(decoded):,} reviews are not UTF-8 (the first is "
            f"{bad[0]}); their bad bytes are read as U+FFFD",
            stacklevel=3,
        )
    return decoded
