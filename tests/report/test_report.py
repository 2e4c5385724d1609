"""The report shows the run's figures, loads nothing from the network, and escapes the reviews."""

import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

import experiments.report as cli
from bahdanau_jax import InputError, Prediction, Predictor
from bahdanau_jax.evaluation import faithfulness
from bahdanau_jax.report import report, reviews
from bahdanau_jax.runs.predictions import read_predictions, read_reviews

pytestmark = pytest.mark.slow  # trains, or compiles for long

EVIL = '<script>alert("1")</script></div></body> <img src=x onerror=alert(1)> {{ 7 * 7 }} \u202e &lt;b&gt; fine'


class Page(HTMLParser):
    """The elements of a page, and the text inside each `<div class="text">`."""

    VOID = {"meta", "br", "img", "link", "input", "hr"}

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.stack: list[str] = []
        self._inside = 0
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in self.VOID:
            return
        self.stack.append(tag)
        if self._inside:
            self._inside += 1
        elif dict(attrs).get("class") == "text":
            self._inside = 1
            self.texts.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag
        self._inside = max(self._inside - 1, 0)

    def handle_data(self, data):
        if self._inside:
            self.texts[-1] += data


@pytest.fixture(scope="module")
def page(tiny_run):
    return Page((tiny_run / "report.html").read_text(encoding="utf-8"))


def copy(tiny_run, tmp_path, name="run"):
    return shutil.copytree(tiny_run, tmp_path / name)


def set_texts(run, change):
    lines = [json.loads(line) for line in (run / "reviews.jsonl").read_text().splitlines()]
    changed = [json.dumps({"id": x["id"], "text": change(x["text"])}) + "\n" for x in lines]
    (run / "reviews.jsonl").write_text("".join(changed))


def test_every_run_ends_with_a_report_and_a_temperature(tiny_run, page):
    assert {"report.html", "calibration.json", "reviews.jsonl"} <= {
        x.name for x in tiny_run.iterdir()
    }
    assert "report in" in (tiny_run / "train.log").read_text()
    sections = [attributes.get("id") for tag, attributes in page.elements if tag == "section"]
    assert sections == [
        "result", "curves", "confusion", "calibration", "length", "mistakes", "hits", "words",
        "faithfulness", "settings",
    ]  # fmt: skip


def test_every_figure_has_a_caption_and_unique_ids(page, tiny_run):
    html = (tiny_run / "report.html").read_text(encoding="utf-8")
    figures = re.findall(r"<figure>(.*?)</figure>", html, re.DOTALL)
    assert len(figures) >= 8
    for figure in figures:
        (caption,) = re.findall(r"<figcaption>(.*?)</figcaption>", figure, re.DOTALL)
        assert caption.strip().endswith(".") and len(caption.split()) > 8
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    hrefs = [v for _, a in page.elements for k, v in a.items() if k in ("href", "xlink:href")]
    assert hrefs and {x.removeprefix("#") for x in hrefs} <= set(ids)


def test_the_page_loads_nothing_from_the_network(page, tiny_run):
    html = (tiny_run / "report.html").read_text(encoding="utf-8")
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("src", "srcset", "data", "action")
            assert "javascript:" not in (value or "")
    assert "http" not in re.sub(r"http-equiv", "", html)
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", html) and "@import" not in html
    policy = [a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert not re.search(r"#00000[1-9]\b", html)  # no placeholder colour is left


def test_it_shows_the_figures_of_the_run(tiny_run):
    html = (tiny_run / "report.html").read_text(encoding="utf-8")
    test = read_predictions(tiny_run)
    assert f'<div class="big">{test.correct.mean():.2%}</div>' in html
    kept = json.loads((tiny_run / "calibration.json").read_text())
    errors = kept["expected_calibration_error"]["test"]
    assert f"{errors['before']:.4f}" in html and f"{errors['after']:.4f}" in html
    assert test.words is not None and test.words.min() >= 5


def test_predictions_are_scaled_by_the_temperature(tiny_run, tmp_path):
    texts = ["a superb film", "boring, dull and weak"]
    scaled = Predictor.load(tiny_run)
    run = copy(tiny_run, tmp_path)
    (run / "calibration.json").unlink()
    plain = Predictor.load(run)
    assert plain.temperature == 1.0 != scaled.temperature
    for got, want in zip(scaled(texts), plain(texts), strict=True):
        logits = np.log(want.probabilities / want.probabilities[::-1])
        expected = 1 / (1 + np.exp(-logits / scaled.temperature))
        np.testing.assert_allclose(got.probabilities, expected, atol=1e-5)
        assert got.label == want.label


def test_reviews_and_names_are_escaped(tiny_run, tmp_path):
    run = copy(tiny_run, tmp_path)
    set_texts(run, lambda text: EVIL)
    result = json.loads((run / "result.json").read_text())
    result |= {"label_names": ["<script>x</script>", "$\\frac{$"], "test_description": "<b>&"}
    (run / "result.json").write_text(json.dumps(result))
    page = Page(report.make_report(run).read_text(encoding="utf-8"))
    assert not {tag for tag, _ in page.elements} & {"script", "img"}
    assert page.texts
    for text in page.texts:
        assert text.strip() == EVIL.replace("\u202e", "\ufffd")


@pytest.mark.parametrize(
    "texts", [[""], ["\x00\x1b[31m", "half a pair \ud83d", "word " * 300, "...", "\n\n"]], ids=len
)
def test_any_text_makes_a_page(tiny_run, tmp_path, texts):
    run, following = copy(tiny_run, tmp_path), itertools.cycle(texts)
    set_texts(run, lambda _: next(following))
    Page(report.make_report(run).read_text(encoding="utf-8"))


def test_shades():
    prediction = Prediction(
        label="pos",
        probability=0.9,
        probabilities=np.array([0.1, 0.9]),
        words=["<start>", "one", "two", "three"],
        weights=np.array([0.1, 0.5, 0.1, 0.3]),
        known=np.array([True, True, True, False]),
    )
    found = reviews.shaded("One, two  three!", prediction)
    assert "".join(piece[0] for piece in found["pieces"]) == "One, two  three!"
    words = [piece[:2] + piece[3:] for piece in found["pieces"] if piece[0].isalpha()]
    # 0.25 is the even share; 0.3 is a fifth of the way from there to 0.5.
    assert words == [("One", 9, True), ("two", 0, True), ("three", 2, False)]
    assert found["top"] == pytest.approx(2.0) and found["unread"] == ""


def test_two_runs_side_by_side_with_a_baseline(tiny_run, tmp_path):
    first, second = copy(tiny_run, tmp_path, "one"), copy(tiny_run, tmp_path, "two")
    baseline = copy(tiny_run, tmp_path, "baseline")
    lines = (second / "predictions.jsonl").read_text().splitlines()
    other = [json.loads(line) for line in lines]
    for record in other[-30:-20]:
        record["probabilities"].reverse()
    (second / "predictions.jsonl").write_text("".join(json.dumps(x) + "\n" for x in other))
    # The baseline has the same reviews in another order.
    (baseline / "predictions.jsonl").write_text("".join(x + "\n" for x in reversed(lines)))
    argv = ["report", f"--workdir={first},{second}", f"--output={tmp_path}/out.html"]
    assert cli.main(argv) == 0
    html = (tmp_path / "out.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "differences" in [a.get("id") for _, a in page.elements]
    big = re.findall(r'class="big">([\d.]+%)', html)
    mine, theirs = (read_predictions(x).correct.mean() for x in (first, second))
    assert big == [f"{mine:.2%}", f"{theirs:.2%}", f"{mine:.2%}"]
    wrong = int(read_predictions(first).correct[:10].sum())
    text = " ".join(html.split())
    assert f"one alone is correct on {wrong} review" in text
    assert "one alone is correct on 0 reviews, baseline alone on 0 reviews" in text


def test_a_baseline_on_other_reviews_is_left_out_or_refused(tiny_run, tmp_path):
    run, baseline = copy(tiny_run, tmp_path), copy(tiny_run, tmp_path, "baseline")
    lines = (baseline / "predictions.jsonl").read_text().splitlines()
    (baseline / "predictions.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    html = report.make_report(run).read_text(encoding="utf-8")
    assert html.count('class="big"') == 1
    with pytest.raises(InputError, match="was tested on other reviews than"):
        report.make_report(run, baseline=baseline)
    with pytest.raises(InputError, match="none/predictions.jsonl cannot be read"):
        report.make_report(run, baseline=tmp_path / "none")


def test_the_command_gets_the_texts_of_an_older_run_from_its_data_set(tiny_run, tmp_path):
    run = copy(tiny_run, tmp_path)
    for name in ("reviews.jsonl", "calibration.json", "report.html"):
        (run / name).unlink()
    Page(report.make_report(run).read_text(encoding="utf-8"))
    assert "kept no texts" in (run / "report.html").read_text()
    assert cli.main(["report", f"--workdir={run}"]) == 0
    assert (run / "reviews.jsonl").read_text() == (tiny_run / "reviews.jsonl").read_text()
    assert "kept no texts" not in (run / "report.html").read_text()


def test_a_classifier_without_embed_gets_a_report_without_faithfulness(
    tiny_run, tmp_path, monkeypatch
):
    run = copy(tiny_run, tmp_path)
    monkeypatch.setattr(faithfulness, "obstacle", lambda predictor: "no attribute 'embed'")
    html = report.make_report(run).read_text(encoding="utf-8")
    section = html[
        html.index('<section id="faithfulness">') : html.index('<section id="settings">')
    ]
    assert "gradients need a classifier with embed(ids)" in section and "<figure" not in section
    assert "<figure" in html and "kept no texts of its test reviews to measure on" not in html


def test_a_report_that_fails_costs_no_result(add_report, tmp_path, monkeypatch):
    from bahdanau_jax.training.metric_writer import MetricWriter

    def fails(*_):
        raise ZeroDivisionError("of two\nlines")

    monkeypatch.setattr(report, "make_report", fails)
    with MetricWriter(tmp_path, total_steps=1) as writer:
        add_report(SimpleNamespace(workdir=tmp_path, writer=writer))
    log = (tmp_path / "train.log").read_text()
    assert "warning: there is no report (ZeroDivisionError: of two lines)" in log
    assert read_reviews(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir is missing"),
        (["--workdir=a,,b"], "--workdir is missing"),
        (["--workdir=a,b,c,d,e,f"], "expected at most 5"),
        (["--workdir=a", "b"], "unexpected argument 'b'"),
        (["--workdir=no/such/run"], "no/such/run holds no finished run"),
    ],
)
def test_wrong_arguments_end_in_one_line(capsys, arguments, message):
    assert cli.main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_runs_on_other_data_are_not_compared(tiny_run, tmp_path):
    other = copy(tiny_run, tmp_path)
    lines = (other / "predictions.jsonl").read_text().splitlines()
    (other / "predictions.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match="were tested on different reviews"):
        report.make_report(tiny_run, other, output=tmp_path / "x.html")
