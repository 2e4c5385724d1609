"""Splits a text into words and maps words to ids. Exported `.pyz` files carry this file.

It imports nothing of ours but `token_ids`, which they carry too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bahdanau_jax.token_ids import FIRST_WORD, START, UNKNOWN

SPECIAL_WORDS = {START: "<start>", UNKNOWN: "<unk>", 3: "<unused>"}

_FILTERED = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
_TO_SPACE = str.maketrans(_FILTERED, " " * len(_FILTERED))
_WORD = re.compile(f"[^ {re.escape(_FILTERED)}]+")
_WORD_OR_MARK = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_BREAK = "<br />"


def split_words(text: str, *, marks: bool = False) -> list[str]:
    """Splits a text into lower-case words, by Keras's rule: punctuation becomes spaces.

    The apostrophe and white space other than space, tab and newline stay part of a word.

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
    return [word for word in text.lower().translate(_TO_SPACE).split(" ") if word]


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

    def encode(self, text: str, *, marks: bool = False) -> list[int]:
        """Returns START, then the id of each word of `text`."""
        return [START, *map(self.__getitem__, split_words(text, marks=marks))]


def word_of(i: int, words: Sequence[str]) -> str:
    """Returns the word with id `i`; a special id gives "<start>", "<unk>" or "<unused>".

    Example:
      >>> word_of(5, ["a", "fine"]), word_of(2, ["a", "fine"])
      ('fine', '<unk>')
    """
    return words[i - FIRST_WORD] if i >= FIRST_WORD else SPECIAL_WORDS[i]
