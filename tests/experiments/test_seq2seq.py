"""Training from the command line: it learns, resumes to the same bits, and translates afterwards."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from matplotlib.image import imread

from bahdanau_jax.models.seq2seq import Seq2Seq
from bahdanau_jax.token_ids import END, PAD, START
from bahdanau_jax.training import seq2seq as training
from experiments import lengths, seq2seq, translate

pytestmark = pytest.mark.slow  # trains, or compiles for long

TINY = [
    "--config.steps=6", "--config.batch_size=8", "--config.data.train_size=60",
    "--config.data.validation_size=10", "--config.data.test_size=10", "--config.data.longest=4",
    "--config.model.embedding_features=4", "--config.model.hidden_features=4",
    "--config.model.attention_units=4", "--config.beams=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seq2seq") / "run"
    assert seq2seq.main(["seq2seq", f"--workdir={folder}", *TINY]) == 0
    return folder


@pytest.fixture(scope="module", params=["gru", "lstm"])
def model(request):
    return Seq2Seq(
        vocab_size=9, embedding_features=4, hidden_features=5, cell=request.param, rngs=nnx.Rngs(0)
    )


@nnx.jit
def call(model, source, before):
    return model(source, before)


SOURCE = jnp.array([[5, 7, 8, 4], [6, 4, 0, 0], [7, 0, 0, 0]])


def test_decoding_takes_the_likeliest_id_at_each_step(model):
    written, scores = model.decode(SOURCE, steps=6)
    before = jnp.pad(written[:, 0, :-1], ((0, 0), (1, 0)), constant_values=START)
    logits, weights = call(model, SOURCE, before)
    real = np.asarray(written[:, 0] != PAD)
    np.testing.assert_array_equal(
        np.asarray(logits.argmax(-1))[real], np.asarray(written[:, 0])[real]
    )
    chosen = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.asarray(written[:, 0, :, None]), 2
    )
    np.testing.assert_allclose(scores[:, 0], np.where(real, chosen[..., 0], 0).sum(1), atol=1e-5)
    np.testing.assert_allclose(np.asarray(weights).sum(-1)[np.asarray(before != PAD)], 1, atol=1e-5)
    assert (np.asarray(weights).swapaxes(1, 2)[np.asarray(SOURCE) == PAD] == 0).all()


def test_beams_score_what_teacher_forcing_gives(model):
    written, scores = model.decode(SOURCE, steps=4, beams=3, length_penalty=1.0)
    for beam in range(3):
        ids = written[:, beam]
        before = jnp.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        logits, _ = call(model, SOURCE, before)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=2)[..., 0]
        want = jnp.sum(jnp.where(ids != PAD, chosen, 0), 1) / jnp.sum(ids != PAD, 1)
        np.testing.assert_allclose(scores[:, beam], want, atol=1e-5)


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


def test_a_run_leaves_weights_figures_and_a_picture(workdir, capsys):
    result = json.loads((workdir / "result.json").read_text())
    test = result["splits"]["test"]
    assert test["greedy"]["n"] == test["beam"]["n"] == 10
    assert sum(row["n"] for row in test["greedy"]["by_length"]) == 10
    assert imread(workdir / "alignment.png").std() > 0
    assert not (workdir / "resume.safetensors").exists()
    assert seq2seq.main(["seq2seq", f"--workdir={workdir}", *TINY]) == 0
    assert "already finished" in capsys.readouterr().out


def test_a_stopped_run_resumes_to_the_same_bits(workdir, tmp_path, monkeypatch, capsys):
    step = training.train_step
    done = []

    def stop_at_three(*arguments):
        done.append(1)
        if len(done) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(training, "train_step", stop_at_three)
    command = ["seq2seq", f"--workdir={tmp_path}", *TINY]
    assert seq2seq.main(command) == 75
    assert "at step 3 of 6; rerun the same command to resume" in capsys.readouterr().err
    assert seq2seq.main(command) == 0 and len(done) == 6
    assert (tmp_path / "model.safetensors").read_bytes() == (
        workdir / "model.safetensors"
    ).read_bytes()


def test_translate(workdir, tmp_path, capsys):
    picture = tmp_path / "new" / "picture.png"
    assert (
        translate.main(["translate", f"--workdir={workdir}", f"--picture={picture}", "314", "2"])
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


def test_pairs_of_your_own_as_words(tmp_path, capsys):
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"ein {a} {b}\tone {b} {a}\n" for a in "abcd" for b in "vwxyz"))
    folder = tmp_path / "run"
    flags = [
        f"--workdir={folder}",
        "--config.data.source=tsv",
        f"--config.data.path={file}",
        "--config.data.tokens=words",
    ]
    assert seq2seq.main(["seq2seq", *flags, *TINY]) == 0
    assert "2 pairs cut out" not in capsys.readouterr().err
    assert json.loads((folder / "result.json").read_text())["splits"]["test"]["greedy"]["n"] == 2
    assert "one" in json.loads((folder / "vocabulary.json").read_text())["words"]


def test_lengths_compares_with_and_without(tmp_path, capsys):
    flags = [
        "--config=experiments/digits.py",
        "--seeds=3",
        f"--out={tmp_path}",
        "--config.data.test_longest=5",
        *TINY,
    ]
    assert lengths.main(["lengths", *flags]) == 0
    rows = (tmp_path / "lengths.md").read_text().splitlines()
    assert rows[0].count("exact") == 2 and [row.split(" | ")[0] for row in rows[2:]] == [
        "| 3",
        "| 4",
        "| 5",
    ]
    assert imread(tmp_path / "lengths.png").std() > 0
    assert not (tmp_path / "none-3" / "alignment.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.source=csv"], "config.data.source is 'csv'; expected 'reverse' or 'sort'"),
        (["--config.data.source=tsv"], "config.data.path is empty; expected a TSV file"),
        (["--config.data.shortest=5"], "config.data.longest is 4; expected at least config.data.shortest, 5"),
        (["--config.batch_size=61"], "config.batch_size is 61; expected at most the 60 training pairs"),
        (["--config.stepz=1"], "config has no field 'stepz'; did you mean steps"),
        (["--task=sort"], "unknown flag --task"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_named_in_one_line(flags, message, tmp_path, capsys):
    assert seq2seq.main(["seq2seq", f"--workdir={tmp_path / 'x'}", *TINY, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
