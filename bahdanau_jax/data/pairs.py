"""Pairs of texts to translate: from a TSV file of your own, or made on the spot (dates.py, digits.py)."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.data.hold_out import hashes_of, tenth
from bahdanau_jax.errors import DataNotFound, InputError
from bahdanau_jax.token_ids import END, PAD


class Characters:
    """Every character of a text as it stands. (The classifiers' "characters" ignore case.)"""

    joint = ""

    def tokens(self, text: str) -> list[str]:
        """The characters."""
        return list(text)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each."""
        return [(i, i + 1) for i in range(len(text))]


class Words:
    """What stands between blanks."""

    joint = " "

    def tokens(self, text: str) -> list[str]:
        """The words."""
        return text.split()

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each."""
        return [found.span() for found in re.finditer(r"\S+", text)]


TOKENIZERS = {"characters": Characters, "words": Words}


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Sources and their targets."""

    sources: list[str]
    targets: list[str]

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, chosen: np.ndarray) -> "Pairs":
        """The pairs at these positions."""
        return Pairs([self.sources[i] for i in chosen], [self.targets[i] for i in chosen])


@dataclasses.dataclass(frozen=True)
class PairData:
    """The splits, and a sentence on what test holds."""

    train: Pairs
    validation: Pairs
    test: Pairs
    test_description: str


def read_pairs(path: str | Path) -> Pairs:
    r"""Reads a TSV file: a source, a tab and a target on each line, in UTF-8. Blank lines are skipped.

    Raises:
      DataNotFound: there is no such file.
      InputError: it cannot be read, or a line is something else; names the line.

    Example:
      >>> import tempfile
      >>> file = Path(tempfile.mkdtemp(), "pairs.tsv")
      >>> _ = file.write_text("zwei\ttwo\ndrei\tthree\n")
      >>> read_pairs(file).targets
      ['two', 'three']
    """
    pairs = Pairs([], [])
    try:
        content = Path(path).expanduser().read_bytes()
    except FileNotFoundError as error:
        raise DataNotFound(
            f"{path} does not exist; expected a TSV file of sources and targets"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            fields = line.decode().rstrip("\r").split("\t")
        except UnicodeDecodeError as error:
            byte = line[error.start]
            raise InputError(
                f"{path}: line {number} is not UTF-8 (byte {byte:#04x}); expected a file in UTF-8"
            ) from error
        if fields == [""]:
            continue
        if len(fields) != 2:
            raise InputError(
                f"{path}: line {number} has {len(fields)} fields; expected 2: source and target"
            )
        for name, text in zip(("source", "target"), fields, strict=True):
            if not text.strip():
                raise InputError(f"{path}: line {number} has an empty {name}; expected a text")
        pairs.sources.append(fields[0])
        pairs.targets.append(fields[1])
    if not len(pairs):
        raise InputError(f"{path} is empty; expected lines of source, tab and target")
    return pairs


def load_pairs(data: Mapping[str, Any], *, seed: int) -> PairData:
    """Loads what the `data` section of a seq2seq config names.

    A TSV file without a validation or test file gives a tenth of its pairs to each, by a hash of the source,
    so that all targets of one source stay together.

    Raises:
      DataNotFound, InputError: as `read_pairs`; or too few pairs.
    """
    sizes = {name: data[f"{name}_size"] for name in ("train", "validation", "test")}
    lengths = data["shortest"], data["longest"], data["test_longest"] or data["longest"]
    if data["source"] == "dates":
        from bahdanau_jax.data.dates import make_dates

        return make_dates(sizes, lengths, seed=seed)
    if data["source"] in ("reverse", "sort"):
        from bahdanau_jax.data.digits import make_digits

        return make_digits(data["source"], sizes, lengths, seed=seed)
    path = data["path"]
    if not path:
        raise InputError("config.data.path is empty; expected a TSV file of sources and targets")
    train = read_pairs(path)
    order = np.argsort(hashes_of(train.sources), kind="stable")
    found, notes = {}, []
    for name in ("test", "validation"):
        if data[f"{name}_path"]:
            found[name] = read_pairs(data[f"{name}_path"])
            notes.append(f"pairs of {Path(data[f'{name}_path']).name}")
            continue
        count = tenth(len(train))
        while (
            0 < count < len(order)
            and train.sources[order[count - 1]] == train.sources[order[count]]
        ):
            count += 1  # all targets of one source
        found[name], order = train.take(np.sort(order[:count])), order[count:]
        notes.append(f"pairs cut out of {Path(path).name}")
    if not len(order):
        raise InputError(f"{path} has {len(train)} pairs; expected more, to keep some for training")
    return PairData(train.take(np.sort(order)), **found, test_description=notes[0])


def batches(
    sources: list[np.ndarray], targets: list[np.ndarray], batch_size: int, *, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches without end, each of pairs of about one length, in an order that `seed` fixes.

    Args:
      sources, targets: ids of each text, int32 [length].
      batch_size: pairs in each batch; at most their number. The rest of an epoch is left out.

    Yields:
      sources [batch, time] and targets [batch, steps], which end with END; PAD fills them up. Times are
      multiples of 16 and steps of 4, so that few shapes are compiled.
    """
    rng = np.random.default_rng([seed, 0])
    pool = 20 * batch_size  # sorted by length
    lengths = np.array([(len(t), len(s)) for s, t in zip(sources, targets, strict=True)])
    while True:
        order = rng.permutation(len(sources))
        order = order[: len(order) // batch_size * batch_size]
        groups = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.lexsort(lengths[part].T[::-1])]
            groups.extend(part.reshape(-1, batch_size))
        for i in rng.permutation(len(groups)):
            yield pad([sources[j] for j in groups[i]], 16), end([targets[j] for j in groups[i]])


def pad(rows: list[np.ndarray], multiple: int) -> np.ndarray:
    """The rows as one array, filled up with PAD to a multiple of a length.

    Example:
      >>> pad([np.array([5, 6]), np.array([7])], 4).tolist()
      [[5, 6, 0, 0], [7, 0, 0, 0]]
    """
    time = -(-max(map(len, rows)) // multiple) * multiple
    padded = np.full((len(rows), time), PAD, np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


def end(rows: list[np.ndarray], multiple: int = 4) -> np.ndarray:
    """The rows, each with END after it, as one array; see `pad`."""
    return pad([np.append(row, END) for row in rows], multiple)
