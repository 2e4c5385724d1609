"""A program that is traced on a CPU lowers for every platform, and only the CPU's calls the kernel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import export

from bahdanau_jax.data.batches import Batch
from bahdanau_jax.layers import BiLSTM, lstm_implementation
from bahdanau_jax.layers.cpu_kernel import TARGET
from bahdanau_jax.models.classifier import AttentionClassifier
from bahdanau_jax.training.steps import train_step

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@pytest.mark.slow
def test_a_training_step_lowers_for_every_platform():
    assert lstm_implementation()[0] == "native"
    model = AttentionClassifier(20, embedding_features=4, hidden_features=4, rngs=nnx.Rngs(0))
    graph, state = nnx.split((model, nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)))
    rows = np.zeros(4, np.int32)
    batch = Batch(np.ones((4, 6), np.int32), rows, rows == 0, rows)
    traced = jax.jit(partial(train_step, graph)).trace(state, batch)
    for platform in PLATFORMS:
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert (TARGET in text) == (platform == "cpu"), platform
    assert TARGET in traced.lower(lowering_platforms=PLATFORMS).as_text()


@pytest.mark.slow
def test_one_export_serves_all_platforms_any_size_and_gradients():
    encoder = BiLSTM(4, 3, rngs=nnx.Rngs(0))

    def outputs(x):
        return encoder(x)[0]

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4)), jnp.float32)
    shape = export.symbolic_shape("batch, time, 4")
    abstract = jax.ShapeDtypeStruct(shape, jnp.float32)
    exported = export.export(jax.jit(outputs), platforms=PLATFORMS)(abstract)
    assert TARGET not in exported.mlir_module()
    loaded = export.deserialize(exported.serialize(vjp_order=1))
    np.testing.assert_allclose(loaded.call(x), outputs(x), atol=1e-6)
    got, want = (jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2))(x) for f in (loaded.call, outputs))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_kernel_alone_is_refused_on_other_platforms():
    encoder = BiLSTM(4, 3, implementation="native", rngs=nnx.Rngs(0))
    traced = jax.jit(lambda x: encoder(x)[0]).trace(jnp.ones((2, 5, 4)))
    with pytest.raises(ValueError, match="'native', which runs on cpu alone"):
        traced.lower(lowering_platforms=("tpu",))
