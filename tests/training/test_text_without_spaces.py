"""Chinese reviews, which have no spaces, train with the other tokenizers, and all that reads a run follows."""

import json
import random
import shutil
import subprocess
import sys

import pytest

from bahdanau_jax import InputError, Predictor
from bahdanau_jax.data.subwords import Unigram
from bahdanau_jax.evaluation import faithfulness
from bahdanau_jax.interop.export import export_model
from bahdanau_jax.recipes import warm_start
from bahdanau_jax.report.reviews import shaded
from bahdanau_jax.runs.config import Tokenizer
from bahdanau_jax.training import train
from experiments import baseline, imdb_tiny

pytestmark = pytest.mark.slow  # trains

GOOD, BAD = ["干净", "满意", "方便", "舒服", "热情"], ["肮脏", "失望", "吵闹", "难吃", "冷淡"]
ODD = ["", "房间\u200b很干净。", "ＯＫ，服务热情！\r\n早餐难吃", "🦜" * 80, "e\u0301½ good"]


def reviews(n):
    rng = random.Random(0)
    parts = ["房间", "服务", "早餐", "位置", "酒店", "前台", "浴室"]
    for i in range(n):
        clauses = [
            f"{rng.choice(parts)}{rng.choice(['很', '非常', '真的', '比较'])}{rng.choice([BAD, GOOD][i % 2])}"
            for _ in range(rng.randint(1, 3))
        ]
        yield {"text": "，".join(clauses) + f"。{i}", "label": ("差评", "好评")[i % 2]}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("chinese") / "reviews.jsonl"
    file.write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in reviews(300)))
    config = imdb_tiny.get_config()
    config.data.source, config.data.path = "files", str(file)
    config.data.validation_size = config.data.test_size = 40
    config.vocab_size, config.max_length, config.bucket_lengths = 120, 64, (64,)
    config.model.ngrams, config.model.ngram_rows = 2, 4096
    config.batch_size, config.epochs, config.checkpoint.every_steps = 20, 4, 11
    return config


@pytest.fixture(scope="module", params=["characters", "bpe", "unigram"])
def run(request, config, tmp_path_factory):
    if request.param in ("bpe", "unigram"):
        pytest.importorskip("tokenizers")
    config = config.copy_and_resolve_references()
    config.tokenizer.name = request.param
    folder = tmp_path_factory.mktemp("runs") / request.param
    return config, folder, train.train_and_evaluate(config, folder)


def test_it_learns_where_words_cannot(run):
    _, folder, result = run
    assert result["splits"]["test"]["accuracy"] > 0.95
    [prediction] = Predictor.load(folder)(["浴室真的肮脏，早餐非常难吃"])
    assert prediction.label == "差评" and prediction.known.all()


def test_a_resumed_run_keeps_what_it_learned(run, tmp_path, monkeypatch):
    config, folder, _ = run
    resumed = shutil.copytree(folder, tmp_path / "run")
    steps = sorted(int(x.name) for x in (resumed / "checkpoints").iterdir() if x.name.isdecimal())
    shutil.rmtree(resumed / "checkpoints" / str(steps[-1]))
    (resumed / "result.json").unlink()
    (resumed / "predictions.jsonl").unlink()
    monkeypatch.setattr(Unigram, "learn", None)  # would raise if called
    train.train_and_evaluate(config, resumed)
    for name in ("predictions.jsonl", "vocabulary.json", "data.json"):
        assert (resumed / name).read_bytes() == (folder / name).read_bytes()


def test_a_run_that_starts_from_it_takes_what_it_learned(run):
    config, folder, _ = run
    name = config.tokenizer.name
    vocabulary = warm_start.read_vocabulary(folder, 120, Tokenizer(name=name))
    want = Predictor.load(folder).vocabulary
    assert (vocabulary.words, vocabulary.options) == (want.words, want.options)
    with pytest.raises(InputError, match=r"config.tokenizer is .*'marks'.*; expected the same"):
        warm_start.read_vocabulary(folder, 120, Tokenizer(name="marks"))


def test_shading_and_faithfulness_follow(run):
    _, folder, _ = run
    predictor = Predictor.load(folder)
    texts = [*ODD, "浴室真的肮脏，早餐非常难吃 不好 很吵"]
    for text, prediction in zip(texts, predictor(texts), strict=True):
        shown = shaded(text, prediction)
        whole = shown["unread"] + "".join(piece for piece, *_ in shown["pieces"])
        assert whole == text.replace("\r\n", " \n")
    if faithfulness.obstacle(predictor) is None:
        measured = faithfulness.measure(predictor, texts[-1:])
        assert measured.words.tolist() == [len(prediction.words) - 1]
    with pytest.raises(InputError, match=r"texts\[1\] is nan \(float\); expected a text"):
        predictor(["好", float("nan")])
    with pytest.raises(InputError, match=r"texts\[1\] is None \(NoneType\); expected a text"):
        faithfulness.measure(predictor, ["好", None])


def test_the_exported_file_needs_no_tokenizers(run, tmp_path):
    config, folder, _ = run
    if config.tokenizer.name != "unigram":
        return
    export_model(folder, tmp_path / "run.pyz")
    code = (
        "import sys; sys.modules['tokenizers'] = sys.modules['flax'] = None\n"
        "sys.path.insert(0, sys.argv[1]); from bahdanau_jax.interop.standalone import main\n"
        "main(sys.argv[1], ['早餐非常难吃'])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, tmp_path / "run.pyz"], capture_output=True, text=True
    )
    assert json.loads(done.stdout)["label"] == "差评", done.stderr


def test_the_baseline_follows(run, tmp_path):
    config, *_ = run
    name = config.tokenizer.name
    arguments = [
        f"--config.data.path={config.data.path}",
        "--config.data.source=files",
        "--ngrams=2",
    ]
    arguments += [f"--config.tokenizer.name={name}", "--config.vocab_size=120"]
    arguments += ["--config.data.test_size=40", "--config.data.validation_size=40"]
    assert baseline.main(["baseline", *arguments, f"--workdir={tmp_path / 'run'}"]) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["splits"]["test"]["accuracy"] > 0.95
