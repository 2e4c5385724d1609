"""The texts that a report needs come back, whatever they hold; others on the same data keep the same ones."""

import numpy as np
import pytest

from bahdanau_jax import InputError
from bahdanau_jax.runs import kept_reviews
from bahdanau_jax.data.dataset import Examples

RNG = np.random.default_rng(0)
N = 3_000
LABELS = RNG.integers(0, 2, N).astype(np.int32)
TEXTS = [f"review {i} <script>\n\u2028\ud83d" for i in range(N)]
TEST = Examples(TEXTS, LABELS, [f"test/{i}" for i in range(N)])


def some_probabilities(seed):
    p = np.random.default_rng(seed).random(N)
    return np.stack([1 - p, p], axis=1)


def test_what_is_kept(tmp_path):
    p = some_probabilities(1)
    kept_reviews.write_reviews(tmp_path, TEST, p)
    texts = kept_reviews.read_reviews(tmp_path)
    assert all(text == TEXTS[int(name.split("/")[1])] for name, text in texts.items())
    sample, mistakes = kept_reviews.choose(p, LABELS)
    assert list(texts)[:1_000] == [f"test/{i}" for i in sample]
    assert {f"test/{i}" for i in mistakes} <= set(texts)
    # The mistakes are wrong, and no other mistake is as confident.
    assert (p[mistakes].argmax(1) != LABELS[mistakes]).all() and len(mistakes) == 24
    others = np.setdiff1d(np.flatnonzero(p.argmax(1) != LABELS), mistakes)
    assert p[mistakes].max(1).min() >= p[others].max(1).max()


def test_two_runs_keep_the_same_sample():
    first, second = (kept_reviews.choose(some_probabilities(i), LABELS)[0] for i in (1, 2))
    np.testing.assert_array_equal(first, second)
    assert len(set(first.tolist())) == 1_000


def test_few_reviews_are_all_kept(tmp_path):
    kept_reviews.write_reviews(tmp_path, TEST.take(range(5)), some_probabilities(1)[:5])
    assert len(kept_reviews.read_reviews(tmp_path)) == 5
    assert kept_reviews.read_reviews(tmp_path / "none") == {}


@pytest.mark.parametrize("content", ['{"id": "a", "text": "b"}\n{"id"', "3\n", '{"id": "a"}\n'])
def test_a_damaged_file_is_named_with_its_line(tmp_path, content):
    (tmp_path / "reviews.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"reviews.jsonl: line \d is .*; expected a review's id"):
        kept_reviews.read_reviews(tmp_path)
