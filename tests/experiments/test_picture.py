"""The picture shows the whole text within its lines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from bahdanau_jax.data.tokenizer import split_words, word_spans
from bahdanau_jax.evaluation.predictor import Prediction
from experiments import picture

some_text = st.text(st.sampled_from("aB'é-.,<>$ \n\t"), max_size=80)


@given(some_text, st.integers(3, 30))
def test_all_of_the_text_is_laid_out_within_the_lines(text, line_width):
    spans = word_spans(text)
    pieces = picture.lay_out(text, spans, len, line_width)
    assert "".join(piece.text for piece in pieces) == "".join(text.split())
    assert all(0 <= piece.x and piece.x + piece.width <= line_width for piece in pieces)
    places = [(piece.line, piece.x) for piece in pieces]
    assert places == sorted(places)
    words = ["".join(p.text for p in pieces if p.word == i) for i in range(len(spans))]
    assert [word.lower() for word in words] == split_words(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["Not $a_b$ <br />GOOD film.", "", "…!", "long " * 40, "x" * 300, "a\x85b \x00 c"]
)
def test_any_text_is_drawn(tmp_path, text):
    words = ["<start>", *split_words(text)][-20:]
    weights = np.linspace(0.5, 1, len(words), dtype=np.float32)
    prediction = Prediction(
        label="neg",
        probability=0.9,
        probabilities=np.array([0.9, 0.1], np.float32),
        words=words,
        weights=weights / weights.sum(),
        known=np.arange(len(words)) % 3 != 1,
    )
    file = tmp_path / "folder" / "picture.png"
    picture.draw(file, text, prediction, headline="50% of $x$", caption="a caption")
    height, width, _ = imread(file).shape
    assert width == picture.WIDTH and height >= 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=x.png"], "--workdir is missing"),
        (["--workdir=x"], "--out is missing"),
        (["--workdir=x", "--out=x.png", "y"], "unexpected argument 'y'"),
        (["--workdir=x", "--out=x.png", "--id=a", "--review=b"], "both given"),
        (["--workdir=no/such/run", "--out=x.png"], "no/such/run is not a run folder"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(capsys, arguments, message):
    assert picture.main(["picture", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
