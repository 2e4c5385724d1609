"""A folder that TFDS prepared: found, checked, and read without TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.errors import InputError

_MEND = "half-prepared or damaged; remove this folder to have it prepared again"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A checked data set: `read(split)` gives its texts, labels (int32 [n]) and ids.

    `read_texts(split)` gives the texts alone, whatever stands in place of labels. `labelled(split)`
    says whether the first record has a label: what a test split lacks, it lacks throughout.
    """

    name: str
    label_names: tuple[str, ...]
    splits: tuple[str, ...]
    read: Callable[[str], tuple[list[str], np.ndarray, list[str]]]
    read_texts: Callable[[str], list[str]]
    labelled: Callable[[str], bool]


def find_prepared(root: Path, name: str) -> Path | None:
    """Folder of the newest prepared version of `name`, None where there is none.

        find_prepared(root, "imdb_reviews")         # root/imdb_reviews/plain_text/1.0.0
        find_prepared(root, "glue/sst2:2.0.0")      # root/glue/sst2/2.0.0

    Raises:
        InputError: `root` is a file, `name` is no TFDS name, or several of its configs are prepared.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file; expected the folder that holds TFDS's data sets")
    base, _, version = name.partition(":")
    if not re.fullmatch(r"\w+(/[\w.-]+)?", base, re.ASCII):
        raise InputError(f"{name!r} is not a TFDS data set's name; expected one like imdb_reviews")
    found = []
    # name/version, or name/config/version; a preparation that broke off leaves "incomplete.*".
    for folder in [*(root / base).glob("*"), *(root / base).glob("*/*")]:
        numbers = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", folder.name, re.ASCII)
        if numbers and version in ("", folder.name):
            found.append((tuple(map(int, numbers.groups())), folder))
    configs = {folder.parent for _, folder in found}
    if len(configs) > 1:
        names = ", ".join(sorted(config.relative_to(root).as_posix() for config in configs))
        raise InputError(f"{root}: {name} is prepared in several configs; name one of {names}")
    return max(found)[1] if found else None


def open_prepared(
    root: Path,
    folder: Path,
    *,
    splits: Sequence[str] = ("train", "test"),
    text: str = "text",
    label: str = "label",
) -> Prepared:
    """Opens a prepared folder that `find_prepared` found, and checks that its splits are whole.

    It must have `splits` and the features `text` and `label`.

    The number of records of every file is checked here, before anything is trained; the records
    themselves are checked (by their checksums) as they are read.

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
        raise InputError(f"{folder}: TFDS cannot open it ({_one_line(error)}); {_MEND}") from error

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
    others = (split for split in ("validation", "test") if split in shards)
    for split in dict.fromkeys([*splits, *others]):
        if split not in shards:
            raise InputError(
                f"{folder}: has no split {split}; it has {', '.join(shards) or 'none'}"
            )
        if not sum(length for _, length in shards[split]):
            raise InputError(f"{folder}: the split {split} holds no records; {_MEND}")
        for path, length in shards[split]:
            _check_shard(path, length)

    def fetch(split: str, most: int | None = None) -> list[Any]:
        try:
            source: Any = tfds.data_source(full_name, split=split, data_dir=root, download=False)
            return source.__getitems__(range(most or len(source)))
        except Exception as error:
            raise InputError(
                f"{folder}: cannot read the split {split} ({_one_line(error)}); {_MEND}"
            ) from error

    def read_records(split: str) -> tuple[list[str], list[int], list[str]]:
        records = fetch(split)
        ids = [f"{split}/{i}" for i in range(len(records))]
        texts = _decode([record[text] for record in records], ids, folder)
        return texts, [record[label] for record in records], ids

    def read(split: str) -> tuple[list[str], np.ndarray, list[str]]:
        texts, found, ids = read_records(split)
        labels = np.array(found, np.int64)
        outside = np.flatnonzero((labels < 0) | (labels >= len(label_names)))
        if outside.size:
            raise InputError(
                f"{folder}: review {ids[outside[0]]} has the label {labels[outside[0]]}; "
                f"expected 0 to {len(label_names) - 1} ({', '.join(label_names)})"
            )
        return texts, labels.astype(np.int32), ids

    def read_texts(split: str) -> list[str]:
        if split not in shards:
            raise InputError(
                f"{folder}: has no split {split}; it has {', '.join(shards) or 'none'}"
            )
        for path, length in shards[split]:
            _check_shard(path, length)
        return read_records(split)[0]

    def labelled(split: str) -> bool:
        return int(fetch(split, 1)[0][label]) >= 0

    name = folder.relative_to(root).parts[0]
    return Prepared(name, label_names, tuple(shards), read, read_texts, labelled)


def prepare_by_tfds(root: Path, name: str) -> None:
    """Has TFDS download a data set and prepare it in array_record format; raises whatever TFDS raises."""
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder: Any = tfds.builder(name, data_dir=root, file_format="array_record")
    builder.download_and_prepare(download_config=config)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path.parent}: {path.name} is missing; {_MEND}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path.parent}: cannot read {path.name} ({error}); {_MEND}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path.parent}: {path.name} is not a JSON object; {_MEND}")
    return content


def _check_shard(path: Path, length: int) -> None:
    from array_record.python.array_record_module import ArrayRecordReader

    if not path.is_file():
        raise InputError(f"{path.parent}: the record file {path.name} is missing; {_MEND}")
    # The index stands at the file's end, so a file that is cut short is found without reading it.
    reader = ArrayRecordReader(str(path))
    if not reader.ok():
        raise InputError(
            f"{path.parent}: the record file {path.name} ({path.stat().st_size:,} bytes) is cut "
            f"short or damaged, expected {length:,} records; {_MEND}"
        )
    found = reader.num_records()
    reader.close()
    if found != length:
        raise InputError(
            f"{path.parent}: the record file {path.name} holds {found:,} records, "
            f"dataset_info.json says {length:,}; {_MEND}"
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


def _one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
