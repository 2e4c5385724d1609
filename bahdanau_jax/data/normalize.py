r"""One form for texts that look alike: characters and subwords are cut from it. `.pyz` files carry this file.

- Lower case, and Unicode's compatibility forms (NFKC, UAX #15): full-width "Ａ" is "a", "ﬁ" is "fi".
- Line ends (LF, CR, CRLF, U+2028, U+2029, "<br />") and every other white space separate alike.
- Invisible characters go: byte order marks, joiners, soft hyphens, directions, variation selectors (Unicode's
  Default_Ignorable_Code_Point). The zero-width space, with which Thai and Khmer end words, separates.
"""

import re
import unicodedata
from functools import lru_cache

_BREAK = "<br />"
_ZERO_WIDTH_SPACE = "\u200b"
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def normalize(text: str) -> str:
    r"""The text in its one form; white space stays as written.

    Example:
      >>> normalize("\ufeffＧＯＯＤ<br />ﬁlm\u200bso\u00adso")
      'good      film soso'
    """
    return _lower(unicodedata.normalize("NFKC", _INVISIBLE.sub("", _blank(text))))


def origins(text: str) -> list[int]:
    """Where in `text` each character of `normalize(text)` begins, and at last the length of `text`.

    What several characters of the form share, such as the two of "ﬁ", begins at the first of them and ends
    there: the later ones are empty.

    Example:
      >>> origins("aﬁx"), normalize("aﬁx")
      ([0, 1, 2, 2, 3], 'afix')
    """
    blanked = _blank(text)
    if blanked.isascii():
        return list(range(len(text) + 1))
    starts: list[int] = []
    cluster, begins = "", 0
    for i, c in enumerate(blanked):
        if _INVISIBLE.match(c):
            continue
        if cluster and _joins(cluster[-4:], c):
            cluster += c
            continue
        starts += _spread(cluster, begins, i)
        cluster, begins = c, i
    return [*starts, *_spread(cluster, begins, len(text)), len(text)]


def _blank(text: str) -> str:
    """The separators that are no white space, replaced one character for one."""
    return text.replace(_BREAK, " " * len(_BREAK)).replace(_ZERO_WIDTH_SPACE, " ")


def _lower(text: str) -> str:
    # "İ" alone has a lower case of two characters.
    return text.replace("İ", "i").lower()


def _spread(cluster: str, begins: int, ends: int) -> list[int]:
    length = len(_nfkc(cluster))
    return [begins, *[ends] * (length - 1)] if length else []


@lru_cache(maxsize=2**16)
def _joins(before: str, c: str) -> bool:
    """Whether NFKC may join `c` with what stands before it: `c` is a mark, or composes (Hangul)."""
    if c < "\u0300":
        return False
    if unicodedata.combining(unicodedata.normalize("NFKD", c)[0]):
        return True
    return _nfkc(before + c) != _nfkc(before) + _nfkc(c)


@lru_cache(maxsize=2**16)
def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)
