"""BLEU against its definition in Papineni et al. 2002; groups of lengths."""

import math
from collections import Counter

import numpy as np
import pytest

from bahdanau_jax.evaluation.translation import bleu, figures

pytest.importorskip("sacrebleu")


def plain_bleu(written, targets):
    """Corpus BLEU of characters: clipped n-gram precisions to 4, and the brevity penalty."""
    logs = 0.0
    for n in range(1, 5):
        hits = total = 0
        for a, b in zip(written, targets, strict=True):
            ours, theirs = (Counter(x[i : i + n] for i in range(len(x) - n + 1)) for x in (a, b))
            hits += sum((ours & theirs).values())
            total += sum(ours.values())
        logs += math.log(hits / total) / 4
    ours, theirs = len("".join(written)), len("".join(targets))
    return 100 * math.exp(logs + min(0, 1 - theirs / ours))


@pytest.mark.parametrize("cut", [0, 2], ids=["as long", "shorter"])
def test_bleu_is_what_its_definition_says(cut):
    rng = np.random.default_rng(0)
    targets = ["".join(rng.choice(list("0123-"), 12)) for _ in range(30)]
    written = [target[: 12 - cut - i % 5] + "0" * (i % 5) for i, target in enumerate(targets)]
    np.testing.assert_allclose(bleu(written, targets, "characters"), plain_bleu(written, targets))
    assert 5 < bleu(written, targets, "characters") < 99


def test_words_are_words():
    assert bleu(["the cat sat on the mat"], ["the cat sat on the mat"], "words") == pytest.approx(
        100
    )
    assert bleu(["the cat sat on the rug"], ["the cat sat on the mat"], "words") < 80


def test_many_lengths_are_grouped():
    targets = ["x" * n for n in range(1, 101)]
    rows = figures(targets, targets, tokens="characters", length=len)["by_length"]
    assert 8 <= len(rows) <= 12 and sum(row["n"] for row in rows) == 100
    assert [row["shortest"] for row in rows[1:]] == [row["longest"] + 1 for row in rows[:-1]]
    assert {row["exact"] for row in rows} == {1.0}
