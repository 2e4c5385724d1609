"""Predictions and reviews come back as written; a damaged file is named in one line."""

import json

import numpy as np
import pytest

from bahdanau_jax.data.dataset import Examples
from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.predictions import (
    choose_reviews,
    read_predictions,
    read_reviews,
    write_predictions,
    write_reviews,
)


def examples(split, labels):
    labels = np.array(labels, np.int32)
    return Examples(["text"] * len(labels), labels, [f"{split}/{i}" for i in range(len(labels))])


def test_what_was_written_comes_back_split_by_split(tmp_path):
    write_predictions(
        tmp_path / "predictions.jsonl",
        {
            "validation": (examples("train", [1]), np.array([[0.0]])),
            "test": (examples("test", [0, 1, 1]), np.array([[-2.0], [2.0], [-1.0]])),
        },
    )
    test = read_predictions(tmp_path)
    assert test.ids == ["test/0", "test/1", "test/2"]
    assert test.labels.tolist() == [0, 1, 1] and test.labels.dtype == np.int32
    sigmoid = 1 / (1 + np.exp([2.0, -2.0, 1.0]))
    np.testing.assert_allclose(test.probabilities, np.c_[1 - sigmoid, sigmoid], rtol=1e-6)
    assert test.correct.tolist() == [True, True, False]
    assert read_predictions(tmp_path, "validation").ids == ["train/0"]


def test_the_number_of_words_comes_back_where_it_was_kept(tmp_path):
    path, logits = tmp_path / "predictions.jsonl", np.array([[0.0], [1.0]])
    splits = {
        "validation": (examples("train", [1]), logits[:1]),
        "test": (examples("test", [0, 1]), logits),
    }
    write_predictions(path, splits)
    assert read_predictions(tmp_path).words is None
    write_predictions(path, splits, {"validation": [7], "test": np.array([3, 500])})
    words = read_predictions(tmp_path).words
    assert words is not None and words.tolist() == [3, 500]


def test_more_classes(tmp_path):
    logits = np.array([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    write_predictions(tmp_path / "predictions.jsonl", {"test": (examples("test", [1, 2]), logits)})
    assert read_predictions(tmp_path).correct.tolist() == [True, False]


GOOD = json.dumps({"split": "test", "id": "a", "label": 1, "probabilities": [0.5, 0.5]}) + "\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "predictions.jsonl cannot be read"),
        (b"", "no prediction of the split test"),
        (b"\xff", "is damaged"),
        (GOOD.encode() + b'{"split"', "line 2 is '{\"split\"'; expected split, id"),
        (GOOD.encode() + b"3\n", "line 2"),
        (b'{"split": "test", "id": "a", "label": 1}', "line 1 .* probabilities"),
        (GOOD.replace("0.5]", "1e308]").encode(), "line 1 .* the probabilities"),
        (GOOD.replace("}", ', "words": -1}').encode(), "line 1 .* -1 words"),
        (GOOD.replace("0.5]", "0.5, 0]").encode() + GOOD.encode(), "line 2 .* 2 probabilities"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "predictions.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=expected) as raised:
        read_predictions(tmp_path)
    assert "\n" not in str(raised.value)


# --- reviews.jsonl ------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
N = 3_000
LABELS = RNG.integers(0, 2, N).astype(np.int32)
TEXTS = [f"review {i} <script>\n\u2028\ud83d" for i in range(N)]
TEST = Examples(TEXTS, LABELS, [f"test/{i}" for i in range(N)])


def some_probabilities(seed):
    p = np.random.default_rng(seed).random(N)
    return np.stack([1 - p, p], axis=1)


def test_the_sample_and_the_most_confident_mistakes_are_kept(tmp_path):
    p = some_probabilities(1)
    write_reviews(tmp_path, TEST, p)
    texts = read_reviews(tmp_path)
    assert all(text == TEXTS[int(name.split("/")[1])] for name, text in texts.items())
    sample, mistakes = choose_reviews(p, LABELS)
    assert list(texts)[:1_000] == [f"test/{i}" for i in sample]
    assert {f"test/{i}" for i in mistakes} <= set(texts)
    # The mistakes are wrong, and no other mistake is as confident.
    assert (p[mistakes].argmax(1) != LABELS[mistakes]).all() and len(mistakes) == 24
    others = np.setdiff1d(np.flatnonzero(p.argmax(1) != LABELS), mistakes)
    assert p[mistakes].max(1).min() >= p[others].max(1).max()


def test_two_runs_keep_the_same_sample():
    first, second = (choose_reviews(some_probabilities(i), LABELS)[0] for i in (1, 2))
    np.testing.assert_array_equal(first, second)
    assert len(set(first.tolist())) == 1_000


def test_few_reviews_are_all_kept(tmp_path):
    write_reviews(tmp_path, TEST.take(range(5)), some_probabilities(1)[:5])
    assert len(read_reviews(tmp_path)) == 5
    assert read_reviews(tmp_path / "none") == {}


@pytest.mark.parametrize("content", ['{"id": "a", "text": "b"}\n{"id"', "3\n", '{"id": "a"}\n'])
def test_a_damaged_reviews_file_is_named_with_its_line(tmp_path, content):
    (tmp_path / "reviews.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"reviews.jsonl: line \d is .*; expected a review's id"):
        read_reviews(tmp_path)
