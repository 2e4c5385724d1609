"""Losses and gradients that are not finite: found on the device, left out, counted, told, resumed."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_train import (
    check_same,
    compiled_once,  # noqa: F401
    figures,
    small_config,
    train_until_killed,
)

from bahdanau_jax.data import synthetic
from bahdanau_jax.data.batches import Batch, rows_of_step, train_batches
from bahdanau_jax.evaluation import metrics
from bahdanau_jax.models.classifier import AttentionClassifier
from bahdanau_jax.runs.safe_files import read_json
from bahdanau_jax.training import steps, train
from bahdanau_jax.training.monitor import NotFinite
from bahdanau_jax.training.step_report import part_names

pytestmark = pytest.mark.slow  # trains, or compiles for long

BAD_LABEL = 3  # the loss of a batch that holds it is made NaN


step_fn = jax.jit(steps.train_step, static_argnums=0)


def make_state(seed=0):
    model = AttentionClassifier(
        10, embedding_features=3, hidden_features=2, attention_units=2, rngs=nnx.Rngs(seed)
    )
    return nnx.split((model, nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)))


def make_batch():
    ids = np.array([[1, 4, 5, 0], [1, 6, 0, 0]], np.int32)
    return Batch(ids, np.array([0, 1], np.int32), np.ones(2, bool), np.arange(2, dtype=np.int32))


def arrays(state):
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(state)
    ]


def same(state, other):
    # Bytes: a NaN is not equal to itself.
    return all(
        a.tobytes() == b.tobytes() for a, b in zip(arrays(state), arrays(other), strict=True)
    )


def with_parameter(state, name, at, value):
    """A copy of the state with one number of one parameter changed."""
    [path] = [path for path, _ in nnx.to_flat_state(state[0]) if ".".join(map(str, path)) == name]
    pure = nnx.to_pure_dict(state)
    inner = pure[0]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = inner[path[-1]].at[at].set(value)
    changed = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(changed, pure)
    return changed


def test_a_finite_step_reports_the_norms_and_moves_every_part():
    graphdef, state = make_state()
    after, report = step_fn(graphdef, state, make_batch())
    assert report.finite and float(report.metrics.count) == 2
    names = part_names(nnx.state(nnx.merge(graphdef, state)[0], nnx.Param))
    norms = dict(zip(names, np.asarray(report.parameter_norms), strict=True))
    model = nnx.merge(graphdef, state)[0]
    assert norms["embedding.embedding"] == pytest.approx(
        np.linalg.norm(model.embedding.embedding.get_value()), rel=1e-6
    )
    assert norms["output.kernel"] == pytest.approx(
        np.linalg.norm(model.output.kernel.get_value()), rel=1e-6
    )
    assert not same(after, state)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["embedding.embedding", "hidden.kernel", "output.bias"])
def test_a_parameter_that_is_not_finite_leaves_the_state_as_it_was(name, value):
    graphdef, state = make_state()
    bad = with_parameter(state, name, 0, value)
    after, report = step_fn(graphdef, bad, make_batch())
    assert not report.finite and same(after, bad)
    assert jax.tree.leaves(report.metrics) == [0, 0, 0]


def test_a_padded_row_of_the_table_that_is_nan_is_told_though_nothing_reads_it():
    graphdef, state = make_state()
    bad = with_parameter(state, "embedding.embedding", 9, math.nan)
    assert not step_fn(graphdef, bad, make_batch())[1].finite


def test_rows_of_step_are_those_that_the_batches_have():
    rng = np.random.default_rng(0)
    ids = [np.ones(n, np.int32) for n in rng.integers(1, 9, 23)]
    sizes = dict(batch_size=4, bucket_lengths=[3, 8], seed=5)
    lengths = np.array([len(x) for x in ids])
    for step, batch in enumerate(train_batches(ids, np.zeros(23), epochs=3, **sizes), start=1):
        rows = rows_of_step(lengths, step, **sizes)
        np.testing.assert_array_equal(batch.rows[batch.rows >= 0], rows)
    assert step == 18


@pytest.fixture
def one_bad_review(monkeypatch):
    """Two steps of the run, one in each epoch, have a NaN as their loss; gives the review's id."""
    make_up, loss_and_metrics = synthetic.make_up, metrics.loss_and_metrics

    @functools.wraps(make_up)
    def with_bad(**sizes):
        dataset = make_up(**sizes)
        dataset.train.labels[40] = BAD_LABEL
        return dataset

    def poisoned(logits, labels, real):
        loss, metrics = loss_and_metrics(logits, labels, real)
        bad = jnp.any(labels == BAD_LABEL)
        return loss, metrics._replace(loss_sum=metrics.loss_sum * jnp.where(bad, jnp.nan, 1))

    monkeypatch.setattr(synthetic, "make_up", with_bad)
    monkeypatch.setattr(steps, "loss_and_metrics", poisoned)
    return "train/40"


def config_that_skips(n):
    config = small_config()
    config.max_skipped_steps = n
    return config


def test_the_run_stops_and_says_where(one_bad_review, tmp_path):
    with pytest.raises(NotFinite) as error:
        train.train_and_evaluate(config_that_skips(0), tmp_path / "run")
    message = str(error.value)
    assert "\n" not in message and "its loss is nan" in message
    assert "expected a smaller config.optimizer.learning_rate" in message
    found = read_json(tmp_path / "run" / "not_finite.json")
    assert f"step {found['step']} is not finite" in message
    assert one_bad_review in found["reviews"] and len(set(found["reviews"])) in (10, 16)
    assert found["loss"] == "nan"
    norms = found["norms"]
    assert float(norms["output.kernel"]["parameter"]) > 0
    assert not any(math.isfinite(float(norm["gradient"])) for norm in norms.values())
    saved = [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(saved, default=0) < found["step"]


def test_so_many_steps_are_left_out_and_one_more_stops(one_bad_review, tmp_path, capsys):
    with pytest.raises(NotFinite, match="is not finite after 1 skipped steps"):
        train.train_and_evaluate(config_that_skips(1), tmp_path / "stopped")
    capsys.readouterr()
    result = train.train_and_evaluate(config_that_skips(2), tmp_path / "run")
    assert result["skipped_steps"] == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if "was skipped" in line]
    assert [line[line.index("(") :][:15] for line in lines] == [
        "(1 of at most 2",
        "(2 of at most 2",
    ]
    assert all(math.isfinite(line["loss"]) for line in figures(tmp_path / "run"))


def test_a_run_that_leaves_steps_out_goes_on_to_the_same_bits(
    one_bad_review, tmp_path, monkeypatch
):
    undisturbed = train.train_and_evaluate(config_that_skips(2), tmp_path / "undisturbed")
    for last_step in (5, 10):
        run = tmp_path / str(last_step)
        train_until_killed(config_that_skips(2), run, monkeypatch, last_step=last_step)
        result = train.train_and_evaluate(config_that_skips(2), run)
        assert result["skipped_steps"] == undisturbed["skipped_steps"] == 2
        check_same(run, tmp_path / "undisturbed")


def test_a_rate_that_is_far_too_high_ends_in_one_line(tmp_path):
    config = small_config()
    config.optimizer = type(config)({"name": "sgd", "learning_rate": 1e38})
    with pytest.raises(NotFinite, match="not finite"):
        train.train_and_evaluate(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "not_finite.json").read_text())["step"] >= 2
