"""Training from the command line: it learns, resumes to the same bits, and translates afterwards."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from matplotlib.image import imread

from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.models.seq2seq import Seq2Seq
from bahdanau_jax.token_ids import END, PAD, START
from bahdanau_jax.training import seq2seq as training
from bahdanau_jax.training.translator import Translator
from experiments import lengths, seq2seq, translate

pytestmark = pytest.mark.slow  # trains, or compiles for long

TINY = [
    "--config.steps=6", "--config.batch_size=8", "--config.data.train_size=60",
    "--config.data.validation_size=10", "--config.data.test_size=10", "--config.data.longest=3",
    "--config.model.embedding_features=4", "--config.model.hidden_features=4",
    "--config.model.attention_units=4", "--config.model.cell=lstm", "--config.beams=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Flags for pairs of one's own, of words."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    rows = (f"ein {a} {b}\tone {b} {a}\n" for a in "abcdefgh" for b in "stuvwxyz")
    file.write_text("".join(rows))
    return [
        "--config.data.source=tsv",
        f"--config.data.path={file}",
        "--config.data.tokens=words",
        *TINY,
    ]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("seq2seq") / "run"
    assert seq2seq.main(["seq2seq", f"--workdir={folder}", *pairs]) == 0
    return folder


@pytest.fixture(scope="module")
def model():
    return Seq2Seq(vocab_size=9, embedding_features=4, hidden_features=5, rngs=nnx.Rngs(0))


@nnx.jit
def call(model, source, before):
    return model(source, before)


SOURCE = jnp.array([[5, 7, 8, 4], [6, 4, 0, 0], [7, 0, 0, 0]])


@pytest.mark.parametrize(("beams", "length_penalty"), [(1, 0.0), (3, 1.0)])
def test_scores_are_what_teacher_forcing_gives(model, beams, length_penalty):
    decode = nnx.jit(
        lambda model, source: model.decode(
            source, steps=4, beams=beams, length_penalty=length_penalty
        )
    )
    written, scores = decode(model, SOURCE)
    for beam in range(beams):
        ids = written[:, beam]
        before = jnp.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        logits, weights = call(model, SOURCE, before)
        real = np.asarray(ids != PAD)
        assert real[:, 0].all()
        log_probabilities = np.asarray(jax.nn.log_softmax(logits))
        chosen = np.take_along_axis(log_probabilities, np.asarray(ids)[..., None], axis=2)[..., 0]
        want = np.where(real, chosen, 0).sum(1) / real.sum(1) ** length_penalty
        np.testing.assert_allclose(scores[:, beam], want, atol=1e-5)
        if beams == 1:  # the likeliest at each step
            likeliest = log_probabilities[..., 1:].argmax(-1) + 1  # without PAD
            np.testing.assert_array_equal(likeliest[real], np.asarray(ids)[real])
        weights = np.asarray(weights)
        np.testing.assert_allclose(weights.sum(-1)[np.asarray(before != PAD)], 1, atol=1e-5)
        assert (weights.swapaxes(1, 2)[np.asarray(SOURCE) == PAD] == 0).all()


def test_padding_changes_nothing(model):
    before = jnp.array([[START, 8, 4]])
    logits, weights = call(model, SOURCE[1:2], before)
    want_logits, want_weights = call(model, SOURCE[1:2, :2], before)
    np.testing.assert_allclose(logits, want_logits, atol=1e-6)
    np.testing.assert_allclose(weights[:, :, :2], want_weights, atol=1e-6)


def test_training_lowers_the_loss(model):
    import optax

    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    rng = np.random.default_rng(0)
    source = jnp.asarray(rng.integers(4, 9, (32, 4)))
    target = jnp.concatenate([source[:, ::-1], jnp.full((32, 1), END)], axis=1)
    losses = [float(training.train_step(model, optimizer, source, target)) for _ in range(60)]
    assert losses[0] > 1.9 and losses[-1] < 1.2


def test_a_run_leaves_weights_figures_and_a_picture(workdir, pairs, capsys):
    result = json.loads((workdir / "result.json").read_text())
    test = result["splits"]["test"]
    assert test["greedy"]["n"] == test["beam"]["n"] == 6
    assert sum(row["n"] for row in test["greedy"]["by_length"]) == 6
    assert "one" in json.loads((workdir / "vocabulary.json").read_text())["words"]
    assert imread(workdir / "alignment.png").std() > 0
    assert not (workdir / "resume.safetensors").exists()
    assert seq2seq.main(["seq2seq", f"--workdir={workdir}", *pairs]) == 0
    assert "already finished" in capsys.readouterr().out


def test_a_stopped_run_resumes_to_the_same_bits(workdir, pairs, tmp_path, monkeypatch, capsys):
    step = training.train_step
    done = []

    def stop_at_three(*arguments):
        done.append(1)
        if len(done) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(training, "train_step", stop_at_three)
    command = ["seq2seq", f"--workdir={tmp_path}", *pairs]
    assert seq2seq.main(command) == 75
    assert "at step 3 of 6; rerun the same command to resume" in capsys.readouterr().err
    assert seq2seq.main(command) == 0 and len(done) == 6
    assert (tmp_path / "model.safetensors").read_bytes() == (
        workdir / "model.safetensors"
    ).read_bytes()


def test_translate(workdir, tmp_path, capsys):
    picture = tmp_path / "new" / "picture.png"
    assert (
        translate.main(
            ["translate", f"--workdir={workdir}", f"--picture={picture}", "ein a s", "2"]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(float(line.split("\t")[1]) <= 0 for line in lines)
    assert imread(picture).std() > 0
    for bad in (
        ["--workdir=/nowhere", "1"],
        [f"--workdir={workdir}", ""],
        [f"--workdir={workdir}", "--beams=0", "1"],
    ):
        assert translate.main(["translate", *bad]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_lengths_compares_with_and_without(tmp_path, monkeypatch):
    asked = []

    def finished(config, workdir):
        asked.append((workdir.name, config.seed, config.model.attention_units))
        exact = 0.9 - 0.1 * config.seed if config.model.attention_units else 0.2
        rows = [dict(shortest=n, longest=n, n=7, exact=exact / n, bleu=50.0) for n in (1, 2)]
        of = {"greedy": {"by_length": rows}}
        return {"splits": {"validation": of, "test": of}}

    monkeypatch.setattr(training, "train_seq2seq", finished)
    assert lengths.main(["lengths", "--seeds=0,1", f"--out={tmp_path}"]) == 0
    assert asked == [
        ("attention-0", 0, 64),
        ("none-0", 0, 0),
        ("attention-1", 1, 64),
        ("none-1", 1, 0),
    ]
    rows = (tmp_path / "lengths.md").read_text().splitlines()
    assert rows[2] == "| 1 | 14 | 0.850 (0.800 to 0.900) | 50.0 | 0.200 (0.200 to 0.200) | 50.0 |"
    assert len(rows) == 4 and imread(tmp_path / "lengths.png").std() > 0
    assert lengths.main(["lengths", "--seeds=a"]) == 2


def test_without_attention_there_is_no_alignment():
    sizes = dict(vocab_size=9, embedding_features=2, hidden_features=2, attention_units=0)
    model = Seq2Seq(**sizes, rngs=nnx.Rngs(0))
    logits, weights = call(model, SOURCE, SOURCE)
    assert logits.shape == (3, 4, 9) and weights is None
    padded, _ = call(model, jnp.pad(SOURCE, ((0, 0), (0, 2))), SOURCE)
    np.testing.assert_allclose(logits, padded, atol=1e-6)
    translator = Translator(
        model, Vocabulary(["a"], tokenizer="bahdanau_jax.data.pairs:Words"), " "
    )
    with pytest.raises(InputError, match="attention_units is 0; expected a run with attention"):
        translator.align("a", "a")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.source=csv"], "config.data.source is 'csv'; expected 'reverse' or 'sort'"),
        (["--config.data.source=tsv"], "config.data.path is empty; expected a TSV file"),
        (["--config.data.shortest=5"], "config.data.longest is 3; expected at least config.data.shortest, 5"),
        (["--config.batch_size=61"], "config.batch_size is 61; expected at most the 60 training pairs"),
        (["--config.stepz=1"], "config has no field 'stepz'; did you mean steps"),
        (["--task=sort"], "unknown flag --task"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_named_in_one_line(flags, message, tmp_path, capsys):
    assert seq2seq.main(["seq2seq", f"--workdir={tmp_path / 'x'}", *TINY, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
