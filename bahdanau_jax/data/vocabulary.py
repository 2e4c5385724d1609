"""Maps texts to ids and back, by the rule of the notebook's `keras.datasets.imdb` or another tokenizer."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.atomic_write import write_bytes
from bahdanau_jax.data.find_tokenizer import learned_options, make_tokenizer
from bahdanau_jax.data.token_store import EncodedTexts
from bahdanau_jax.data.tokenizer import WordIds, each_text, not_text, tokenizer_of, word_of
from bahdanau_jax.errors import InputError
from bahdanau_jax.token_ids import FIRST_WORD, PAD

# A million words take about 12 MB.
_MAX_FILE_BYTES = 128 * 2**20


class Vocabulary:
    """The words a model knows: `words[i]` has the id `FIRST_WORD + i`.

    Attributes:
      words: the words, most frequent first in the texts they were counted in.
      tokenizer: cuts a text into words.
      name, options: the tokenizer's name and arguments, as `make_tokenizer` takes them.

    Example:
      >>> vocabulary = Vocabulary.build(["A fine film.", "A dull film!"], size=10_000)
      >>> vocabulary.words
      ('a', 'film', 'dull', 'fine')
      >>> vocabulary.encode("a fine mess")
      array([1, 4, 7, 2], dtype=int32)
      >>> vocabulary.decode([1, 4, 7, 2])
      ['<start>', 'a', 'fine', '<unk>']
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        tokenizer: str = "words",
        options: Mapping[str, Any] = {},  # noqa: B006
    ):
        self.words, self.name, self.options = tuple(words), tokenizer, dict(options)
        self.tokenizer = make_tokenizer(tokenizer, options)
        self._ids = WordIds(self.words)
        if len(self._ids) != len(self.words):
            counts = collections.Counter(self.words)
            twice = next(word for word in self.words if counts[word] > 1)
            raise InputError(f"the vocabulary holds the word {ascii(twice)} twice")

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        *,
        size: int,
        tokenizer: str = "words",
        options: Mapping[str, Any] = {},  # noqa: B006
    ) -> Vocabulary:
        """Takes the most frequent words of texts.

        Words of equal frequency are sorted, so the vocabulary does not depend on the order of the texts.

        Args:
          texts: the texts to count words in, and to learn subwords from.
          size: largest number of ids, including the special ones.
          tokenizer: "words", "marks", "characters", "bpe", "unigram" or "package.module:Class".
          options: arguments of a class of your own.

        Raises:
          InputError: `size` leaves no room for a word, or a text is none.
        """
        if size <= FIRST_WORD:
            raise InputError(
                f"the vocabulary's size is {size}; expected at least {FIRST_WORD + 1} "
                f"(ids below {FIRST_WORD} are special)"
            )
        if isinstance(texts, Iterator):
            texts = list(texts)  # read twice where subwords are learned
        options = learned_options(tokenizer, options, texts, size - FIRST_WORD)
        split = make_tokenizer(tokenizer, options).tokens
        counts: collections.Counter[str] = collections.Counter()
        for text in each_text(texts):
            counts.update(split(text))
        del counts[""]  # nothing that a file of words could hold
        by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(by_frequency[: size - FIRST_WORD], tokenizer=tokenizer, options=options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocabulary atomically as JSON: its words, and its tokenizer unless it is "words".

        Raises:
          InputError: the file cannot be written, for example because the disk is full.
        """
        content: dict[str, Any] = {"words": self.words}
        if self.name != "words":
            content["tokenizer"] = {"name": self.name, "options": self.options}
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
            name, options = tokenizer_of(content)
            return cls(words, tokenizer=name, options=options)
        except (InputError, TypeError, ValueError) as error:
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
        if not isinstance(text, str):
            raise InputError(f"the text is {not_text(text)}")
        return self.encode_words(self.tokenizer.tokens(text), max_length=max_length)

    def encode_words(self, words: Iterable[str], *, max_length: int | None = None) -> np.ndarray:
        """`encode` of a text that the tokenizer has already cut into words."""
        if max_length is not None and max_length < 1:
            raise InputError(f"max_length is {max_length}; expected at least 1")
        ids = self._ids.encode(words)
        return np.array(ids if max_length is None else ids[-max_length:], np.int32)

    def encode_all(
        self, texts: Iterable[str], *, max_length: int | None = None
    ) -> list[np.ndarray]:
        """Encodes each text: int32 [length] each.

        Raises:
          InputError: one is no text; names its position.
        """
        return [self.encode(text, max_length=max_length) for text in each_text(texts)]

    def gather(self, texts: Iterable[str], folder: str | os.PathLike[str]) -> EncodedTexts:
        """Encodes each text into one array, which moves to a file in `folder` if it becomes large.

        See `EncodedTexts.gather`.
        """
        return EncodedTexts.gather(map(self.encode, each_text(texts)), folder)

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
