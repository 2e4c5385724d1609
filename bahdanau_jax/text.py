"""Text to words, words to ids, and back: by the rule of the notebook's `keras.datasets.imdb`, or with marks.

Example:
    vocabulary = Vocabulary.build(["A fine film.", "A dull film!"], size=10_000)
    vocabulary.encode("a fine mess")        # array([1, 4, 7, 2], dtype=int32): <start> a fine <unk>
    vocabulary.decode([1, 4, 7, 2])         # ["<start>", "a", "fine", "<unk>"]
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bahdanau_jax.encoded import EncodedTexts
from bahdanau_jax.errors import InputError

PAD, START, UNKNOWN, FIRST_WORD = 0, 1, 2, 4
SPECIAL_WORDS = {START: "<start>", UNKNOWN: "<unk>", 3: "<unused>"}

_FILTERED = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
_TO_SPACE = str.maketrans(_FILTERED, " " * len(_FILTERED))
_WORD = re.compile(f"[^ {re.escape(_FILTERED)}]+")
_WORD_OR_MARK = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_BREAK = "<br />"
# A million words take about 12 MB; whatever is larger than this was not written by `save`.
_MAX_FILE_BYTES = 128 * 2**20


def split_words(text: str, *, marks: bool = False) -> list[str]:
    """Words of `text`, by Keras's rule: lower-cased, punctuation to spaces, split at spaces.

    The apostrophe and white space other than space, tab and newline stay part of a word.

    With `marks`, each mark is a word of its own, but for apostrophes and hyphens inside words; the line
    break "<br />" is none. "!" and "?" tell a review's mood, and a full stop ends what a phrase is about.

        split_words("It's <br />GREAT, really.")    # ["it's", "br", "great", "really"]
        split_words("It's <br />GREAT, really.", marks=True)    # ["it's", "great", ",", "really", "."]
    """
    if marks:
        return [word.lower() for word in _WORD_OR_MARK.findall(text.replace(_BREAK, " "))]
    return [word for word in text.lower().translate(_TO_SPACE).split(" ") if word]


def word_spans(text: str, *, marks: bool = False) -> list[tuple[int, int]]:
    """Where each word of `split_words(text)` stands in `text`: its start and its end.

    word_spans("It's GREAT.")    # [(0, 4), (5, 10)]
    """
    if marks:
        text = text.replace(_BREAK, " " * len(_BREAK))
        return [match.span() for match in _WORD_OR_MARK.finditer(text)]
    # Lower-casing may change a word's length, but never makes or removes what separates words.
    return [match.span() for match in _WORD.finditer(text)]


class _WordIds(dict[str, int]):
    """Word -> id; a word it does not hold is UNKNOWN (and is not added)."""

    def __missing__(self, word: str) -> int:
        return UNKNOWN


class Vocabulary:
    """The words a model knows: `words[i]` has the id `FIRST_WORD + i`.

    Attributes:
        words: the words by falling frequency in the texts it was built from.
        marks: whether marks are words, see `split_words`.
    """

    def __init__(self, words: Sequence[str], *, marks: bool = False):
        self.words, self.marks = tuple(words), marks
        self._ids = _WordIds((word, FIRST_WORD + i) for i, word in enumerate(self.words))
        if len(self._ids) != len(self.words):
            seen: set[str] = set()
            twice = next(word for word in self.words if word in seen or seen.add(word))
            raise InputError(f"the vocabulary holds the word {ascii(twice)} twice")

    @classmethod
    def build(cls, texts: Iterable[str], *, size: int, marks: bool = False) -> Vocabulary:
        """The most frequent words of `texts`, at most `size` ids with the special ones.

        Words of equal frequency are ordered by the word itself, so the same texts give the same
        vocabulary in whatever order they come.

        Raises:
            InputError: `size` leaves no room for a word.
        """
        if size <= FIRST_WORD:
            raise InputError(
                f"the vocabulary's size is {size}; expected at least {FIRST_WORD + 1} "
                f"(ids below {FIRST_WORD} are special)"
            )
        counts: collections.Counter[str] = collections.Counter()
        for text in texts:
            counts.update(split_words(text, marks=marks))
        by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(by_frequency[: size - FIRST_WORD], marks=marks)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocabulary as JSON, `{"words": [...]}`, all of it or nothing; `"marks": true` too.

        Raises:
            InputError: the file cannot be written, for example since the disk is full.
        """
        path = Path(path)
        content = {"words": self.words} | ({"marks": True} if self.marks else {})
        text = json.dumps(content, ensure_ascii=False, indent=0)
        partial = path.with_name(f"{path.name}.partial")
        # A str may hold half a surrogate pair, which strict UTF-8 refuses to write.
        try:
            with open(partial, "wb") as file:
                file.write(text.encode("utf-8", "surrogatepass"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Reads what `save` wrote.

        Raises:
            InputError: the file cannot be read or is not a vocabulary.
        """
        try:
            size = os.path.getsize(path)
            if size > _MAX_FILE_BYTES:
                raise InputError(
                    f"{path}: {size:,} bytes is too large for a vocabulary; "
                    f"expected at most {_MAX_FILE_BYTES:,}"
                )
            content = json.loads(Path(path).read_bytes().decode("utf-8", "surrogatepass"))
        except OSError as error:
            raise InputError(f"{path}: cannot read the vocabulary: {error.strerror}") from error
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not a vocabulary: not valid JSON ({error})") from error
        words = content.get("words") if isinstance(content, dict) else None
        if not isinstance(words, list):
            raise InputError(f'{path}: not a vocabulary: expected {{"words": [...]}}')
        for i, word in enumerate(words):
            if not isinstance(word, str) or not word:
                raise InputError(
                    f"{path}: not a vocabulary: words[{i}] is {ascii(word)[:40]}; "
                    "expected a string that is not empty"
                )
        try:
            return cls(words, marks=content.get("marks") is True)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def __len__(self) -> int:
        """The number of ids, the special ones included: what an embedding needs rows."""
        return FIRST_WORD + len(self.words)

    def encode(self, text: str, *, max_length: int | None = None) -> np.ndarray:
        """Ids of `text`: START, then a word each; of a longer text the last `max_length` ids.

        Returns:
            int32 [length], 1 <= length <= max_length; an empty text gives [START].
        """
        if max_length is not None and max_length < 1:
            raise InputError(f"max_length is {max_length}; expected at least 1")
        ids = [START]
        ids.extend(map(self._ids.__getitem__, split_words(text, marks=self.marks)))
        if max_length is not None:
            ids = ids[-max_length:]
        return np.array(ids, np.int32)

    def encode_all(
        self, texts: Iterable[str], *, max_length: int | None = None
    ) -> list[np.ndarray]:
        """`encode` of each text: int32 [length] each."""
        return [self.encode(text, max_length=max_length) for text in texts]

    def gather(self, texts: Iterable[str], folder: str | os.PathLike[str]) -> EncodedTexts:
        """`encode_all` in one array, or, of many texts, in a file in `folder`: see `EncodedTexts.gather`."""
        return EncodedTexts.gather(map(self.encode, texts), folder)

    def decode(self, ids: Iterable[int] | np.ndarray) -> list[str]:
        """The words of `ids`, padding dropped; special ids give "<start>", "<unk>", "<unused>".

        Raises:
            InputError: an id that the vocabulary does not have.
        """
        words = []
        for i in map(int, ids):
            if not 0 <= i < len(self):
                raise InputError(f"id {i} is not in the vocabulary; expected 0 to {len(self) - 1}")
            if i != PAD:
                words.append(self.words[i - FIRST_WORD] if i >= FIRST_WORD else SPECIAL_WORDS[i])
        return words
