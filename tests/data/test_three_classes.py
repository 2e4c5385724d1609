"""Three classes, from a file of your own to a prediction, with weights in the loss."""

from functools import partial

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # trains, or compiles for long


def test_class_weights_weigh_the_gradient():
    """A step with weights equals a step on losses weighted by hand. The reported loss has no weights."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from bahdanau_jax import AttentionClassifier
    from bahdanau_jax.data.batches import Batch
    from bahdanau_jax.evaluation.metrics import per_example_loss
    from bahdanau_jax.training.loss import class_weights
    from bahdanau_jax.training.steps import train_step

    assert class_weights(np.array([6, 3, 0, 3])) == pytest.approx((2 / 3, 4 / 3, 0, 4 / 3))
    sizes = dict(
        embedding_features=3, hidden_features=2, num_layers=1, head_features=4, dropout=0.0
    )
    model = AttentionClassifier(
        9, 3, **sizes, head_dropout=0.0, implementation="scan", rngs=nnx.Rngs(0)
    )
    rng = np.random.default_rng(0)
    labels, real = np.array([0, 1, 2, 2], np.int32), np.array([1, 1, 1, 0], bool)
    ids = rng.integers(1, 9, (4, 5)).astype(np.int32)
    weights = np.array([0.5, 2.0, 3.0])

    def loss(model):
        losses = per_example_loss(model(jnp.array(ids))[0], labels)
        return (losses * weights[labels])[:3].sum() / 3, losses[:3].sum()

    want, plain = nnx.jit(nnx.grad(loss, has_aux=True))(model)
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
    graphdef, state = nnx.split((model, optimizer))
    batch = Batch(ids, labels, real, np.arange(4, dtype=np.int32))
    for parts in (1, 2):
        step = partial(train_step, graphdef, microbatches=parts, class_weights=tuple(weights))
        after, report = jax.jit(step)(state, batch)
        stepped = nnx.state(nnx.merge(graphdef, after)[0], nnx.Param)
        for x, y, g in zip(
            *map(jax.tree.leaves, (nnx.state(model, nnx.Param), stepped, want)), strict=True
        ):
            np.testing.assert_allclose(x - y, g, atol=1e-6)
        assert float(report.metrics.loss_sum) == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.slow
def test_a_run_of_three_classes(tmp_path):
    """From a file to a prediction, with the file's label names, weights in the loss, and a baseline."""
    from bahdanau_jax import Predictor
    from bahdanau_jax.evaluation import calibration
    from bahdanau_jax.training import train
    from experiments import baseline, imdb_tiny, own_data

    words = {"red <b>": "fire lava", "green": "leaf moss", "sea, blue": "sea ice"}
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        label = list(words)[int(rng.choice(3, p=[0.6, 0.3, 0.1]))]
        rows.append((f"the {' '.join(rng.permutation(words[label].split()))} of {i}", label))
    path = tmp_path / "colours.tsv"
    path.write_text("colour\tbody\n" + "".join(f"{label}\t{text}\n" for text, label in rows))
    config = imdb_tiny.get_config()
    config.data = own_data.get_config().data
    config.data.path, config.data.text, config.data.label = str(path), "body", "colour"
    config.class_weights, config.epochs, config.max_length = True, 2, 16
    config.bucket_lengths, config.batch_size = (16,), 32
    config.model.embedding_features = config.model.hidden_features = 4
    config.model.num_layers = 1
    config.optimizer.learning_rate = 0.05
    result = train.train_and_evaluate(config, tmp_path / "run")
    names = sorted(words)
    assert result["label_names"] == names and result["splits"]["test"]["n"] == 12
    log = (tmp_path / "run" / "train.log").read_text()
    assert "classes       red <b> " in log and "(times 0." in log and "warning" not in log
    assert 0.05 <= calibration.calibrate(tmp_path / "run")["temperature"] <= 20
    (prediction,) = Predictor.load(tmp_path / "run")(["fire of lava"])
    assert prediction.label in names and prediction.probabilities.shape == (3,)
    data = config.data.to_dict()
    found = baseline.train_and_evaluate(data, tmp_path / "baseline", ngrams=1, seed=0)
    assert found["splits"]["test"]["accuracy"] == 1 and found["label_names"] == names
