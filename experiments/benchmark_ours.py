"""Ours in the benchmark: the only place where it touches the training code."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from bahdanau_jax import AttentionClassifier, BiLSTM
from bahdanau_jax.batches import Batch, plan_by_length, plan_epoch
from bahdanau_jax.optimizer import make_optimizer
from bahdanau_jax.steps import (
    Evaluator,
    choose_microbatches,
    make_mesh,
    replicated,
    shard_batches,
    train_step,
)
from experiments.benchmark_network import Sizes

if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own and refuses unparsed ones


def bucket_lengths() -> tuple[int, ...]:
    """The padded lengths of `imdb.py`."""
    from experiments.imdb import get_config

    return tuple(get_config().bucket_lengths)


def padded_length(lengths: np.ndarray, buckets: Sequence[int]) -> int:
    """What a batch of these lengths is padded to."""
    return int(buckets[int(np.searchsorted(buckets, lengths.max()))])


def epoch_plan(lengths: np.ndarray, batch_size: int, buckets: Sequence[int]) -> list[np.ndarray]:
    """The rows of each batch of an epoch."""
    return plan_epoch(lengths, batch_size, buckets, np.random.default_rng(0))


def prediction_plan(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The rows of each batch of a prediction."""
    return plan_by_length(lengths, batch_size)


class Network:
    """The classifier, as `train_and_evaluate` trains and evaluates it."""

    def __init__(self, sizes: Sizes, *, batch_size: int, buckets: Sequence[int]):
        self.model = AttentionClassifier(
            sizes.vocab_size,
            embedding_features=sizes.embedding_features,
            hidden_features=sizes.hidden_features,
            num_layers=sizes.num_layers,
            attention_units=sizes.attention_units,
            head_features=sizes.head_features,
            dropout=sizes.dropout,
            head_dropout=sizes.head_dropout,
            rngs=nnx.Rngs(0),
        )
        self.model.train()
        transformation = make_optimizer("adam", 1e-3, total_steps=1, eps=1e-7)
        optimizer = nnx.Optimizer(self.model, transformation, wrt=nnx.Param)
        self._mesh = make_mesh()
        graphdef, state = nnx.split((self.model, optimizer))
        self._state = jax.device_put(state, replicated(self._mesh))
        microbatches = choose_microbatches(0, batch_size, self._mesh.size)
        step = partial(train_step, graphdef, microbatches=microbatches)
        self._step = jax.jit(step, donate_argnums=0, out_shardings=replicated(self._mesh))
        self._eval_rows, self._buckets = batch_size // microbatches, buckets

    @cached_property
    def _evaluate(self) -> Evaluator:
        # Not before it is asked for: it compiles in a thread, beside what is being measured.
        return Evaluator(
            self.model,
            self._buckets,
            batch_size=self._eval_rows,
            mesh=self._mesh,
            pool=ThreadPoolExecutor(1),
        )

    def parameters(self) -> int:
        return sum(x.size for x in jax.tree.leaves(nnx.state(self.model, nnx.Param)))

    def train(self, ids: np.ndarray, labels: np.ndarray) -> float:
        """One step; returns the loss once the new weights are there."""
        n = len(ids)
        batch = Batch(ids, labels, np.ones(n, bool), np.arange(n, dtype=np.int32))
        (batch,) = shard_batches(iter([batch]), self._mesh)
        self._state, report = jax.block_until_ready(self._step(self._state, batch))
        return float(report.metrics.loss_sum) / n

    def predict(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [n], in the order of `rows`."""
        return self._evaluate(self._state[0], rows)[:, 0]


def make_layer(hidden: int, inputs: np.ndarray) -> Callable[[], None]:
    """Forward and backward through one BiLSTM over inputs [batch, time, features]."""
    layer = BiLSTM(inputs.shape[-1], hidden, rngs=nnx.Rngs(0))
    mesh = make_mesh()
    rows = PartitionSpec("data") if len(inputs) % mesh.size == 0 else PartitionSpec()
    graphdef, state = nnx.split(layer)
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    x = jax.device_put(inputs, NamedSharding(mesh, rows))

    def loss(state, x):
        return jnp.mean(jnp.square(nnx.merge(graphdef, state)(x)[0]))

    # allow_int: the state holds the counters of random streams as well.
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))

    def run() -> None:
        jax.block_until_ready(gradient(state, x))

    return run


def matmul_flops_per_second(n: int = 4096) -> Callable[[], float]:
    """A large float32 product, n x n by n x n: what this machine's JAX can reach at most."""
    import time

    a = jnp.ones((n, n)) / n
    product = jax.jit(jnp.matmul)

    def measure() -> float:
        begun = time.perf_counter()
        product(a, a).block_until_ready()
        return 2 * n**3 / (time.perf_counter() - begun)

    return measure
