"""The demo shows any text as it was written, shaded by what the predictor and leaving out really say."""

import html
import re

import numpy as np
import pytest

from bahdanau_jax.evaluation.faithfulness import ATTENTION, INTEGRATED, LEFT_OUT
from bahdanau_jax.evaluation.predictor import Predictor
from bahdanau_jax.report import answer


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run)


def shown(page: str) -> list[str]:
    texts = re.findall(r'<div class="text" dir="auto"[^>]*>(.*?)</div>', page, re.DOTALL)
    return [html.unescape(re.sub("<[^>]*>", "", text)) for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script> ${1} {{ value }} <b>a</b> & good",
        "فیلم خوبی بود، می\u200cخواهم دوباره ببینم.\nסרט נהדר 10/10",
        "a\xa0good\u3000film \U0001f468\u200d\U0001f469",
    ],
)
def test_a_text_is_shown_as_written(predictor, text):
    first, last = answer.answers({"<i>": predictor}, text)
    assert shown(first) == [text] and shown(last) == [text] * 3
    assert not re.search("<(script|i|b>a)", first + last) and "&lt;i&gt;" in last


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "Type or paste"), (" \n", "Type or paste"), ("...", "no words"), ("\ud83d a", "�")],
)
def test_texts_of_few_or_no_words(predictor, text, expected):
    for page in answer.answers({"run": predictor}, text):
        assert expected in page
        page.encode()


@pytest.mark.slow
def test_of_a_long_text_only_what_the_model_reads_is_sent_back(predictor):
    text = " ".join(f"word{i}" for i in range(100_000))
    for page in answer.answers({"a": predictor, "b": predictor}, text):
        assert page.count("The model reads the last 64 of 100,000 words.") == 2
        assert {x.split()[0] for x in shown(page)} == {"word99936"} and len(page) < 60_000


def test_the_measures_are_shares_of_the_words(predictor):
    words = "a great film with one awful scene".split()
    text = " ".join(words)
    prediction = predictor([text])[0]
    found = answer.measures(predictor, text, prediction)
    assert found[ATTENTION] is prediction
    weights = {name: getattr(found[name], "weights") for name in (INTEGRATED, LEFT_OUT)}  # noqa: B009
    for shares in weights.values():
        assert shares[0] == 0  # the start symbol
        np.testing.assert_allclose(shares.sum(), 1, atol=1e-6)
    shorter = predictor([" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))])
    change = np.array([np.abs(x.probabilities - prediction.probabilities)[0] for x in shorter])
    np.testing.assert_allclose(weights[LEFT_OUT][1:], change / change.sum(), rtol=1e-2, atol=1e-3)


def test_what_cannot_be_measured_is_said(predictor, monkeypatch):
    monkeypatch.setattr(answer, "_obstacle", lambda _: "no embed")
    monkeypatch.setattr(answer, "WORDS_SQUARED", 9)
    *_, page = answer.answers({"run": predictor}, "a great film indeed")
    assert "Not measured: no embed" in page and "more than 3 words" in page
    assert len(shown(page)) == 1
