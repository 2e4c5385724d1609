"""Cuts a text into tokens and maps tokens to ids. Exported `.pyz` files carry this file and what it imports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from bahdanau_jax.data.normalize import normalize, origins
from bahdanau_jax.data.subwords import Bpe, Unigram
from bahdanau_jax.errors import InputError
from bahdanau_jax.token_ids import FIRST_WORD, START, UNKNOWN

SPECIAL_WORDS = {START: "<start>", UNKNOWN: "<unk>", 3: "<unused>"}

_FILTERED = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n\r'
_TO_SPACE = bytes.maketrans(_FILTERED.encode(), b" " * len(_FILTERED))
_WORD = re.compile(f"[^ {re.escape(_FILTERED)}]+")
_WORD_OR_MARK = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_BREAK = "<br />"


def split_words(text: str, *, marks: bool = False) -> list[str]:
    """Splits a text into lower-case words, by Keras's rule: punctuation becomes spaces.

    The apostrophe and white space other than space, tab, LF and CR stay part of a word. Keras keeps CR too,
    which no review of IMDB has: with it, the last word of a line would be another word in files of Windows.

    With `marks`, each punctuation mark is a word of its own, except apostrophes and hyphens inside words.
    The line break "<br />" is dropped.

    Example:
      >>> split_words("It's <br />GREAT, really.")
      ["it's", 'br', 'great', 'really']
      >>> split_words("It's <br />GREAT, really.", marks=True)
      ["it's", 'great', ',', 'really', '.']
    """
    if marks:
        return [word.lower() for word in _WORD_OR_MARK.findall(text.replace(_BREAK, " "))]
    # Twice as fast as on the str. In UTF-8 a byte of a separator is never part of another character.
    in_utf8 = text.lower().encode("utf-8", "surrogatepass").translate(_TO_SPACE)
    return list(filter(None, in_utf8.decode("utf-8", "surrogatepass").split(" ")))


def word_spans(text: str, *, marks: bool = False) -> list[tuple[int, int]]:
    """Returns the start and end in `text` of each word of `split_words(text)`.

    Example:
      >>> word_spans("It's GREAT.")
      [(0, 4), (5, 10)]
    """
    if marks:
        text = text.replace(_BREAK, " " * len(_BREAK))
        return [match.span() for match in _WORD_OR_MARK.finditer(text)]
    # Lower-casing may change a word's length, but never adds or removes a separator.
    return [match.span() for match in _WORD.finditer(text)]


class Tokenizer(Protocol):
    """What cuts a text into tokens, which a vocabulary calls words.

    A class may have a static method `learn(texts, size)`. It returns the arguments, as JSON, with which the
    class is then made; `size` is the most tokens that the vocabulary holds.
    """

    def tokens(self, text: str) -> list[str]:
        """The tokens in their order."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end in `text` of each token, increasing; a token may have an empty span."""
        ...


class Words:
    """The notebook's words, see `split_words`."""

    tokens = staticmethod(split_words)
    spans = staticmethod(word_spans)


class Marks:
    """Words and punctuation marks, see `split_words`."""

    def tokens(self, text: str) -> list[str]:
        """The words and marks."""
        return split_words(text, marks=True)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each in `text`."""
        return word_spans(text, marks=True)


class Characters:
    r"""The characters of `normalize(text)`; white space between others is one blank.

    Example:
      >>> Characters().tokens("ＯＫ， 不错。\r\n")
      ['o', 'k', ',', ' ', '不', '错', '。']
      >>> Characters().spans("ＯＫ， 不错。\r\n")
      [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]
    """

    def tokens(self, text: str) -> list[str]:
        """The characters."""
        return list(" ".join(normalize(text).split()))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each in `text`."""
        starts, found = origins(text), []
        for word in re.finditer(r"\S+", normalize(text)):
            if found:
                found.append((found[-1][1], starts[word.start()]))
            found += [(starts[i], starts[i + 1]) for i in range(*word.span())]
        return found


BUILT_IN: dict[str, type[Tokenizer]] = {
    "words": Words,
    "marks": Marks,
    "characters": Characters,
    "bpe": Bpe,
    "unigram": Unigram,
}


def tokenizer_of(vocabulary: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of the tokenizer in the content of a vocabulary's file.

    Raises:
      InputError: they are not a name and arguments.

    Example:
      >>> tokenizer_of({"words": ["a"], "marks": True})  # as version 0.2 wrote it
      ('marks', {})
    """
    if "tokenizer" not in vocabulary:
        return "marks" if vocabulary.get("marks") is True else "words", {}
    match vocabulary["tokenizer"]:
        case {"name": str(name), "options": dict(options)}:
            return name, options
    raise InputError('not a vocabulary: expected {"name": ..., "options": ...} as tokenizer')


def each_text(texts: Iterable[Any], name: str = "texts") -> Iterator[str]:
    """Yields texts one by one.

    Args:
      texts: the texts.
      name: what they are, for the message.

    Raises:
      InputError: one of them is no text, when it is reached; or `texts` itself is one.

    Example:
      >>> list(each_text(["fine", float("nan")]))
      Traceback (most recent call last):
      bahdanau_jax.errors.InputError: texts[1] is nan (float); expected a text
    """
    if isinstance(texts, str | bytes):
        raise InputError(f"{name}: found one text; expected a list of texts: pass [text]")
    # What has named columns would give their names.
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise InputError(f"{name}: found {type(texts).__name__}; expected a list of texts")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{name}[{i}] is {not_text(text)}")
        yield text


def not_text(value: Any) -> str:
    """What stands where a text is expected, for messages."""
    return f"{ascii(value)[:40]} ({type(value).__name__}); expected a text"


class WordIds(dict[str, int]):
    """Maps each word to its id, and every other word to UNKNOWN without adding it.

    Example:
      >>> ids = WordIds(["a", "fine"])
      >>> ids["fine"], ids["mess"], len(ids)
      (5, 2, 2)
    """

    def __init__(self, words: Sequence[str]):
        super().__init__((word, FIRST_WORD + i) for i, word in enumerate(words))

    def __missing__(self, word: str) -> int:
        return UNKNOWN

    def encode(self, words: Iterable[str]) -> list[int]:
        """Returns START, then the id of each word."""
        return [START, *map(self.__getitem__, words)]


def word_of(i: int, words: Sequence[str]) -> str:
    """Returns the word with id `i`; a special id gives "<start>", "<unk>" or "<unused>".

    Example:
      >>> word_of(5, ["a", "fine"]), word_of(2, ["a", "fine"])
      ('fine', '<unk>')
    """
    return words[i - FIRST_WORD] if i >= FIRST_WORD else SPECIAL_WORDS[i]
