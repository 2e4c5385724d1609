"""Dates written in many languages and ways, and their ISO form: "7 de marzo de 2004" and "2004-03-07".

Babel (the CLDR) names months and days and gives each language's patterns. A form is a language and a pattern.
Some forms, and some dates, occur only in validation or only in test.
"""

import datetime
from collections.abc import Mapping

import numpy as np

from bahdanau_jax.data.pairs import PairData, Pairs
from bahdanau_jax.errors import InputError

# Croatian is left out: its "lip" is June, the Polish one July.
LANGUAGES = (
    "ar az bg bn ca cs cy da de el en es et eu fi fr ga he hi hu hy id is it ja ka ko lt lv nb nl pl pt ro ru"
    " sk sl sq sr sv ta tr uk vi zh"
).split()
# Beside those of the CLDR. Months are words: nobody knows the date of 3/4/2004.
PATTERNS = (
    "d MMMM y", "d MMM y", "MMMM d, y", "MMM d, y", "EEEE, d MMMM y", "EEE d MMM y", "y MMMM d",
    "d-MMM-y", "d. MMMM y", "MMMM d y, EEEE", "dd MMM y", "y, d MMMM",
)  # fmt: skip
FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
SPLITS = ("train", "validation", "test")
_SHARES = (0.8, 0.1, 0.1)


def make_dates(sizes: Mapping[str, int], lengths: tuple[int, int, int], *, seed: int) -> PairData:
    """Makes lines of one or more dates, such as "7 mars 2004; Sunday, March 7, 2004".

    Each date has a form and a day of its own. The forms and days of a split occur in no other: a tenth of them
    each is kept for validation and test, the same for every seed.

    Args:
      sizes: number of lines of "train", "validation" and "test".
      lengths: least and most dates of a line, and the most of test.
      seed: the same seed gives the same lines.

    Raises:
      InputError: Babel is not installed.

    Example:
      >>> data = make_dates(dict(train=1, validation=1, test=1), (2, 2, 2), seed=0)
      >>> data.train.sources, data.train.targets  # doctest: +SKIP
      (['15. apríla 2046; 24 Tháng 6 1902'], ['2046-04-15 1902-06-24'])
    """
    try:
        from babel.dates import format_date
    except ModuleNotFoundError as error:
        raise InputError(
            "config.data.source is 'dates', which Babel writes; expected pip install 'bahdanau-jax[seq2seq]'"
        ) from error
    shortest, longest, test_longest = lengths
    forms, days = split_forms(), _split(LAST.toordinal() - FIRST.toordinal() + 1)

    def make(split: str, longest: int) -> Pairs:
        rng = np.random.default_rng([seed, SPLITS.index(split)])
        pairs = Pairs([], [])
        for count in rng.integers(shortest, longest + 1, sizes[split]):
            source, target = [], []
            for _ in range(count):
                language, pattern = forms[split][rng.integers(len(forms[split]))]
                ordinal = FIRST.toordinal() + int(days[split][rng.integers(len(days[split]))])
                date = datetime.date.fromordinal(ordinal)
                source.append(format_date(date, pattern, language))
                target.append(date.isoformat())
            pairs.sources.append("; ".join(source))
            pairs.targets.append(" ".join(target))
        return pairs

    return PairData(
        make("train", longest),
        make("validation", longest),
        make("test", test_longest),
        f"{len(forms['test'])} forms and {len(days['test']):,} days that occur in no other split",
    )


def split_forms() -> dict[str, list[tuple[str, str]]]:
    """The forms of each split, as language and pattern."""
    from babel.dates import get_date_format

    forms = []
    for language in LANGUAGES:
        own = (get_date_format(name, language).pattern for name in ("medium", "long", "full"))
        patterns = dict.fromkeys((*own, *PATTERNS))
        forms += [(language, p) for p in patterns if "MMM" in p or p.startswith("y")]
    return {split: [forms[i] for i in chosen] for split, chosen in _split(len(forms)).items()}


def _split(count: int) -> dict[str, np.ndarray]:
    order = np.random.default_rng(0).permutation(count)
    ends = np.cumsum(np.multiply(_SHARES, count)).astype(int)
    return dict(zip(SPLITS, np.split(order, ends[:2]), strict=True))
