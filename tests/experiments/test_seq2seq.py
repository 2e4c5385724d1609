"""Decoding agrees with the training pass, padding changes nothing, and training lowers the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from matplotlib.image import imread

from experiments import seq2seq

pytestmark = pytest.mark.slow  # trains, or compiles for long


@pytest.fixture(scope="module")
def model():
    return seq2seq.Seq2Seq(features=8, rngs=nnx.Rngs(0))


@nnx.jit
def call(model, source, before):
    return model(source, before)


def digits(ids):
    return [int(i) - seq2seq.FIRST_DIGIT for i in ids if 0 < i < seq2seq.START]


@pytest.mark.parametrize("task", ["reverse", "sort"])
def test_batches_hold_the_task(task):
    source, target = seq2seq.make_batch(np.random.default_rng(0), 200, task)
    lengths = (source > 0).sum(1)
    assert lengths.min() == seq2seq.SHORTEST and lengths.max() == seq2seq.LONGEST
    for read, written, length in zip(source, target, lengths, strict=True):
        want = digits(read)[::-1] if task == "reverse" else sorted(digits(read))
        assert digits(written) == want and len(want) == length
        assert written[length] == seq2seq.END and (written[length + 1 :] == seq2seq.PAD).all()


def test_decoding_takes_the_likeliest_id_at_each_step(model):
    source, _ = seq2seq.make_batch(np.random.default_rng(1), 4, "reverse")
    written, weights = model.write(jnp.asarray(source))
    before = jnp.pad(written[:, :-1], ((0, 0), (1, 0)), constant_values=seq2seq.START)
    logits, want_weights = call(model, source, before)
    np.testing.assert_array_equal(logits.argmax(-1), written)
    np.testing.assert_allclose(weights, want_weights, atol=1e-6)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert (np.asarray(weights).swapaxes(1, 2)[source == 0] == 0).all()


def test_padding_changes_nothing(model):
    source = jnp.array([[5, 3, 9, 0, 0, 0]])
    before = jnp.array([[seq2seq.START, 9, 3]])
    logits, weights = call(model, source, before)
    want_logits, want_weights = call(model, source[:, :3], before)
    np.testing.assert_allclose(logits, want_logits, atol=1e-6)
    np.testing.assert_allclose(weights[:, :, :3], want_weights, atol=1e-6)


def test_training_lowers_the_loss(monkeypatch):
    monkeypatch.setattr(seq2seq, "BATCH", 32)
    model, right = seq2seq.train("sort", steps=60, seed=0)
    source, target = seq2seq.make_batch(np.random.default_rng(5), 64, "sort")
    loss, grads = nnx.jit(nnx.value_and_grad(seq2seq.loss_of))(model, source, target)
    assert loss < 1.9 < np.log(11) and 0 <= right <= 1  # ten digits and the end, guessed at random
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_the_command(tmp_path, capsys, monkeypatch):
    out = tmp_path / "folder" / "alignment.png"
    assert seq2seq.main(["seq2seq", "--steps=2", f"--out={out}"]) == 0
    assert "new strings without a mistake" in capsys.readouterr().out
    assert imread(out).std() > 0
    for bad in (["--task=add"], ["--steps=0"], ["x"]):
        assert seq2seq.main(["seq2seq", *bad]) == 2
        assert capsys.readouterr().err.count("\n") == 1
