"""Maps texts to ids and back, by the rule of the notebook's `keras.datasets.imdb` or with punctuation marks."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bahdanau_jax.atomic_write import write_bytes
from bahdanau_jax.data.token_store import EncodedTexts
from bahdanau_jax.data.tokenizer import WordIds, split_words, word_of
from bahdanau_jax.errors import InputError
from bahdanau_jax.token_ids import FIRST_WORD, PAD

# A million words take about 12 MB.
_MAX_FILE_BYTES = 128 * 2**20


class Vocabulary:
    """The words a model knows: `words[i]` has the id `FIRST_WORD + i`.

    Attributes:
      words: the words, most frequent first in the texts they were counted in.
      marks: whether punctuation marks are words, see `split_words`.

    Example:
      >>> vocabulary = Vocabulary.build(["A fine film.", "A dull film!"], size=10_000)
      >>> vocabulary.words
      ('a', 'film', 'dull', 'fine')
      >>> vocabulary.encode("a fine mess")
      array([1, 4, 7, 2], dtype=int32)
      >>> vocabulary.decode([1, 4, 7, 2])
      ['<start>', 'a', 'fine', '<unk>']
    """

    def __init__(self, words: Sequence[str], *, marks: bool = False):
        self.words, self.marks = tuple(words), marks
        self._ids = WordIds(self.words)
        if len(self._ids) != len(self.words):
            counts = collections.Counter(self.words)
            twice = next(word for word in self.words if counts[word] > 1)
            raise InputError(f"the vocabulary holds the word {ascii(twice)} twice")

    @classmethod
    def build(cls, texts: Iterable[str], *, size: int, marks: bool = False) -> Vocabulary:
        """Takes the most frequent words of texts.

        Words of equal frequency are sorted, so the vocabulary does not depend on the order of the texts.

        Args:
          texts: the texts to count words in.
          size: largest number of ids, including the special ones.
          marks: whether punctuation marks are words.

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
        """Writes the vocabulary atomically as JSON, `{"words": [...]}`, with `"marks": true` if it has marks.

        Raises:
          InputError: the file cannot be written, for example because the disk is full.
        """
        content = {"words": self.words} | ({"marks": True} if self.marks else {})
        text = json.dumps(content, ensure_ascii=False, indent=0)
        # A str may hold half a surrogate pair, which strict UTF-8 refuses to write.
        write_bytes(path, text.encode("utf-8", "surrogatepass"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Reads a file that `save` wrote.

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
        """Number of ids, including the special ones: the rows of an embedding."""
        return FIRST_WORD + len(self.words)

    def encode(self, text: str, *, max_length: int | None = None) -> np.ndarray:
        """Returns START and the id of each word of `text`, or the last `max_length` of these ids.

        Returns:
          int32 [length], 1 <= length <= max_length. An empty text gives [START].

        Raises:
          InputError: `max_length` is below 1.
        """
        if max_length is not None and max_length < 1:
            raise InputError(f"max_length is {max_length}; expected at least 1")
        ids = self._ids.encode(text, marks=self.marks)
        return np.array(ids if max_length is None else ids[-max_length:], np.int32)

    def encode_all(
        self, texts: Iterable[str], *, max_length: int | None = None
    ) -> list[np.ndarray]:
        """Encodes each text: int32 [length] each."""
        return [self.encode(text, max_length=max_length) for text in texts]

    def gather(self, texts: Iterable[str], folder: str | os.PathLike[str]) -> EncodedTexts:
        """Encodes each text into one array, which moves to a file in `folder` if it becomes large.

        See `EncodedTexts.gather`.
        """
        return EncodedTexts.gather(map(self.encode, texts), folder)

    def decode(self, ids: Iterable[int] | np.ndarray) -> list[str]:
        """Returns the words of `ids` without padding. Special ids give "<start>", "<unk>" and "<unused>".

        Raises:
          InputError: an id is outside the vocabulary.
        """
        words = []
        for i in map(int, ids):
            if not 0 <= i < len(self):
                raise InputError(f"id {i} is not in the vocabulary; expected 0 to {len(self) - 1}")
            if i != PAD:
                words.append(word_of(i, self.words))
        return words
