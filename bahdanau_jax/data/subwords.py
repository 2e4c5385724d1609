"""Subwords learned on the training texts: byte-pair encoding, unigram. `.pyz` files carry this file.

Hugging Face `tokenizers` learns them (`pip install 'bahdanau-jax[subwords]'`). The encoders here are plain
Python, so that prediction needs no further package; a test compares them with those of `tokenizers`.

A text is normalized, then cut into runs of letters and single marks, of which none longer than 64 characters;
"▁" stands before the runs that begin a word, as in SentencePiece. Subwords never cross runs.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

from bahdanau_jax.data.normalize import normalize, origins
from bahdanau_jax.errors import InputError, one_line

START_OF_WORD = "▁"
_LONGEST_RUN = 64  # bounds the time that one run takes; the longest English words have half of it
_LONGEST_PIECE = 16  # the default of `tokenizers` for a unigram's piece
_UNKNOWN_PENALTY = 10.0  # below the least score, as in `tokenizers` and SentencePiece


class _Subwords:
    """What both models share; they differ in `split`, which cuts a run into subwords."""

    def __init__(self):
        self._cut = lru_cache(maxsize=2**17)(self.split)  # words repeat

    def split(self, run: str) -> list[str]:
        raise NotImplementedError

    def tokens(self, text: str) -> list[str]:
        """The subwords of `text`; a character that was not seen in training is one of its own."""
        return [piece for run, _ in _runs(normalize(text)) for piece in self._cut(run)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end in `text` of each of `tokens(text)`; "▁" alone has none of it."""
        starts, found = origins(text), []
        for run, at in _runs(normalize(text)):
            at -= run.startswith(START_OF_WORD)
            begin = at + run.startswith(START_OF_WORD)
            for piece in self._cut(run):
                at += len(piece)
                found.append((starts[begin], starts[max(at, begin)]))
                begin = max(at, begin)
        return found


class Bpe(_Subwords):
    """Byte-pair encoding on characters (Sennrich et al. 2016, arXiv 1508.07909).

    Args:
      merges: pairs of subwords that become one, the first learned first.

    Example:
      >>> Bpe(merges=[("l", "o"), ("▁", "lo")]).tokens("Lollo")
      ['▁lo', 'l', 'lo']
    """

    def __init__(self, merges: Sequence[Sequence[str]]):
        super().__init__()
        self._ranks = {(a, b): rank for rank, (a, b) in enumerate(merges)}

    def split(self, run: str) -> list[str]:
        """The subwords of one run: the pair learned first is merged first, the leftmost of equals."""
        pieces, ranks, none = list(run), self._ranks, len(self._ranks)
        while len(pieces) > 1:
            pairs = [ranks.get(pair, none) for pair in zip(pieces, pieces[1:], strict=False)]
            least = min(pairs)
            if least == none:
                break
            i = pairs.index(least)
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        return pieces

    @staticmethod
    def learn(texts: Iterable[str], size: int) -> dict[str, Any]:
        """Learns at most `size` subwords; the same texts give the same ones."""
        from tokenizers import models, trainers

        trainer = trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, special_tokens=[], show_progress=False
        )
        return {"merges": _learn(texts, models.BPE(), trainer)["merges"]}


class Unigram(_Subwords):
    """The unigram model: the likeliest of all cuts (Kudo 2018, arXiv 1804.10959).

    Args:
      scores: each subword and its log-probability.

    Example:
      >>> Unigram(scores=[("▁lo", -1.0), ("l", -3.0), ("o", -3.0), ("lo", -2.0)]).tokens("Lollo")
      ['▁lo', 'l', 'lo']
    """

    def __init__(self, scores: Sequence[tuple[str, float]]):
        super().__init__()
        self._scores = dict(scores)
        self._unknown = min(self._scores.values(), default=0.0) - _UNKNOWN_PENALTY
        self._longest = max(map(len, self._scores), default=1)

    def split(self, run: str) -> list[str]:
        """The likeliest subwords of one run (Viterbi)."""
        best: list[tuple[float, int]] = [
            (0.0, 0)
        ]  # score of the best cut up to here, and its last start
        for end in range(1, len(run) + 1):
            cuts = []
            for start in range(max(0, end - self._longest), end):
                score = self._scores.get(run[start:end])
                if score is None and start == end - 1:
                    score = self._unknown
                if score is not None:
                    cuts.append((best[start][0] + score, -start))
            score, start = max(cuts)  # the longest of equals
            best.append((score, -start))
        pieces, end = [], len(run)
        while end:
            pieces.append(run[best[end][1] : end])
            end = best[end][1]
        return pieces[::-1]

    @staticmethod
    def learn(texts: Iterable[str], size: int) -> dict[str, Any]:
        """Learns at most `size` subwords. Scores of rare ones differ a little from one time to the next.

        Raises:
          InputError: the texts have more characters than `size`.
        """
        from tokenizers import models, trainers

        trainer = trainers.UnigramTrainer(
            vocab_size=size + 1,  # with <unk>
            max_piece_length=_LONGEST_PIECE,
            unk_token="<unk>",
            special_tokens=["<unk>"],
            show_progress=False,
        )
        return {"scores": _learn(texts, models.Unigram(), trainer)["vocab"][1:]}  # without <unk>


def _learn(texts: Iterable[str], model: Any, trainer: Any) -> dict[str, Any]:
    """Trains a model of `tokenizers` on the runs of texts; returns what its JSON holds."""
    from tokenizers import Tokenizer, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # A str may hold half a surrogate pair, which UTF-8 does not.
    runs = (joined_runs(text).encode("utf-8", "replace").decode() for text in texts)
    try:
        tokenizer.train_from_iterator(runs, trainer)
    except InputError:
        raise
    except Exception as error:  # all that the package raises
        raise InputError(
            f"subwords cannot be learned ({one_line(error)}); expected a larger config.vocab_size"
        ) from error
    return json.loads(tokenizer.to_str())["model"]


def joined_runs(text: str) -> str:
    """The runs of a text with blanks between them, as `tokenizers` reads them.

    Example:
      >>> joined_runs("It's so-so.")
      "▁it ' s ▁so - so ."
    """
    return " ".join(run for run, _ in _runs(normalize(text)))


def _runs(text: str) -> Iterator[tuple[str, int]]:
    """The runs of a normalized text, and where each begins in it, without its "▁"."""
    for found in _pattern().finditer(text):
        run, at = found[0], found.start()
        if at == 0 or text[at - 1].isspace():
            run = START_OF_WORD + run
        yield run, at


@cache
def _pattern() -> re.Pattern[str]:
    # Python's \w lacks the vowel signs of Thai and Hindi, which Unicode calls marks.
    marks = "".join(c for c in map(chr, range(0x20000)) if unicodedata.category(c)[0] == "M")
    return re.compile(rf"[\w{marks}]{{1,{_LONGEST_RUN}}}|[^\w\s]")
