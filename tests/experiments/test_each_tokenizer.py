"""With each tokenizer, a CSV becomes a run whose predictions, report, .pyz and ONNX file agree."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from bahdanau_jax import Predictor
from bahdanau_jax.data.find_tokenizer import make_tokenizer
from bahdanau_jax.interop.export import export_model
from bahdanau_jax.interop.standalone import Exported
from bahdanau_jax.training import train
from experiments import export, own_data, predict, report

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow  # trains, compiles and makes reports

TEXTS = [
    'It\'s {0}!\r\n\r\n"Really", {1}.\rYes',
    "房间{0}，服务也好。{1}",
    "หนัง\u200bเรื่องนี้ {0} ดีมาก{1}",
    "\ufeffＡ {0} ﬁlm, ½ so\u00ad\u200d cafe\u0301 {1} <br />각🦜\u2028İ <b>&amp;",
]
ODD = ["", " \r\n", "🦜" * 40, "{0}" * 40]


class Characters:
    """A tokenizer of one's own."""

    def tokens(self, text):
        return text.split()

    def spans(self, text):
        return [found.span() for found in re.finditer(r"\S+", text)]


class Shown(HTMLParser):
    """The texts of a report, whole."""

    def __init__(self, html):
        super().__init__()
        self.texts, self._depth = [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if self._depth or ("class", "text") in attrs:
            self._depth += 1
            self.texts += [""] * (self._depth == 1)

    def handle_endtag(self, tag):
        self._depth -= self._depth > 0

    def handle_data(self, data):
        if self._depth:
            self.texts[-1] += data


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "reviews.csv"
    words = (("dull", "坏"), ("fine", "好"))
    with open(path, "w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label"])
        for i in range(80):
            word = words[i % 2][i // 2 % 2]
            rows.writerow([TEXTS[i // 2 % len(TEXTS)].format(word, i), ("neg", "pos")[i % 2]])
    return path


def texts_of(file):
    with open(file, newline="", encoding="utf-8") as stream:
        return [row["text"] for row in csv.DictReader(stream)]


def by_onnx(file, texts):
    """As docs/files.md says."""
    session = onnxruntime.InferenceSession(file)
    about = session.get_modelmeta().custom_metadata_map
    ids = {word: 4 + i for i, word in enumerate(json.loads(about["words"]))}
    tokenizer = make_tokenizer(about["tokenizer"], json.loads(about["tokenizer_options"]))
    for text in texts:
        row = [1, *(ids.get(word, 2) for word in tokenizer.tokens(text))]
        yield session.run(None, {"ids": np.array([row[-int(about["max_length"]) :]])})[0][0]


@pytest.mark.parametrize(
    "name", ["words", "marks", "characters", "bpe", "unigram", f"{__name__}:Characters"]
)
def test_all_that_predicts_agrees(name, file, tmp_path, monkeypatch):
    if name in ("bpe", "unigram"):
        pytest.importorskip("tokenizers")
    config = own_data.get_config()
    config.data.path, config.tokenizer.name = str(file), name
    config.vocab_size, config.max_length, config.bucket_lengths = 100, 16, (16,)
    config.model.embedding_features = config.model.hidden_features = 4
    config.model.attention_units, config.model.num_layers = 4, 1
    config.model.ngrams, config.model.ngram_rows = 2, 256
    config.batch_size, config.epochs = 16, 1
    run = tmp_path / "run"
    train.train_and_evaluate(config, run)
    assert report.main(["report", f"--workdir={run}"]) == 0  # it also fits the temperature
    predictor, texts = Predictor.load(run), [*texts_of(file), *ODD]
    want = np.stack([x.probabilities for x in predictor(texts)])

    def said(*arguments):
        output = tmp_path / "predicted.jsonl"
        assert predict.main(["predict", f"--workdir={run}", f"--output={output}", *arguments]) == 0
        lines = map(json.loads, output.read_text().splitlines())
        return np.array([list(x["probabilities"].values()) for x in lines])

    lines = [text for text in texts if not re.search("[\r\n]", text)]
    chosen = [want[texts.index(line)] for line in lines]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\r\n".join(lines).encode())))
    for found, expected in (
        (said("--", *texts), want),
        (said(f"--input={file}"), want[: -len(ODD)]),
        (said("--input=-"), chosen),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)

    shown = Shown((run / "report.html").read_text(encoding="utf-8")).texts
    expected = {re.sub("\r\n?|\u2028", "\n", text) for text in texts}
    assert shown and {text.replace(" \n", "\n") for text in shown} <= expected

    exported = str(tmp_path / "run.onnx")
    assert export.main(["export", f"--workdir={run}", f"--output={exported}"]) == 0
    np.testing.assert_allclose(list(by_onnx(exported, texts)), want, atol=1e-5)
    if ":" not in name:
        export_model(run, tmp_path / "run.pyz")
        answers = Exported(str(tmp_path / "run.pyz"))([*texts, *texts[:12]])  # 6 batches of 16
        found = [list(x["probabilities"].values()) for x in answers]
        np.testing.assert_allclose(found[: len(texts)], want, atol=1e-5)
