"""bahdanau-jax. The only module of the benchmark that uses the training code."""

import time
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
from bahdanau_jax.data.batches import Batch, plan_by_length, plan_epoch
from bahdanau_jax.training.compile import Evaluator
from bahdanau_jax.training.optimizer import make_optimizer
from bahdanau_jax.training.sharding import make_mesh, replicated, shard_batches
from bahdanau_jax.training.steps import choose_microbatches, train_step
from benchmarks.contenders import threads
from benchmarks.network import Sizes
from experiments import imdb

flags.FLAGS.mark_as_parsed()  # Grain refuses to run before absl's global flags are parsed


def bucket_lengths() -> tuple[int, ...]:
    """The padded lengths of `imdb.py`."""
    return tuple(imdb.get_config().bucket_lengths)


def padded_length(lengths: np.ndarray, buckets: Sequence[int]) -> int:
    """The length that a batch of these lengths is padded to."""
    return int(buckets[int(np.searchsorted(buckets, lengths.max()))])


def epoch_plan(lengths: np.ndarray, batch_size: int, buckets: Sequence[int]) -> list[np.ndarray]:
    """The rows of each batch of an epoch."""
    return plan_epoch(lengths, batch_size, buckets, np.random.default_rng(0))


def prediction_plan(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The rows of each batch of a prediction."""
    return plan_by_length(lengths, batch_size)


def make_model(
    sizes: Sizes, *, implementation: str = "auto", dtype: str = "float32"
) -> AttentionClassifier:
    """The classifier with fresh weights, the same ones each time."""
    return AttentionClassifier(
        sizes.vocab_size,
        embedding_features=sizes.embedding_features,
        hidden_features=sizes.hidden_features,
        num_layers=sizes.num_layers,
        attention_units=sizes.attention_units,
        head_features=sizes.head_features,
        dropout=sizes.dropout,
        head_dropout=sizes.head_dropout,
        implementation=implementation,
        dtype=dtype,
        rngs=nnx.Rngs(0),
    )


class Network:
    """The classifier, as `train_and_evaluate` trains and evaluates it.

    `products` are those of predictions: "float32" or "int16".
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        batch_size: int,
        buckets: Sequence[int],
        products: str = "float32",
        implementation: str = "auto",
        dtype: str = "float32",
    ):
        self.model = make_model(sizes, implementation=implementation, dtype=dtype)
        self._products = products
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
        # Made when first needed: it compiles in a thread and would disturb other measurements.
        return Evaluator(
            self._predicting,
            self._buckets,
            batch_size=self._eval_rows,
            mesh=self._mesh,
            pool=ThreadPoolExecutor(1),
        )

    def train(self, ids: np.ndarray, labels: np.ndarray) -> float:
        """Takes one step, waits for the updated weights and returns the loss."""
        loss = self.start(ids, labels)
        jax.block_until_ready(self._state)
        return float(loss) / len(ids)

    def start(self, ids: np.ndarray, labels: np.ndarray) -> jax.Array:
        """Takes one step without waiting for it."""
        n = len(ids)
        batch = Batch(ids, labels, np.ones(n, bool), np.arange(n, dtype=np.int32))
        (batch,) = shard_batches(iter([batch]), self._mesh)
        self._state, report = self._step(self._state, batch)
        return report.metrics.loss_sum

    def predict(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [n], in the order of `rows`."""
        state = self._state[0] if self._products == "float32" else nnx.state(self._predicting)
        return self._evaluate(state, rows)[:, 0]

    @cached_property
    def _predicting(self) -> nnx.Module:
        if self._products == "float32":
            return self.model
        return nnx.view(self.model, deterministic=True).for_prediction(products=self._products)


def make_layer(
    hidden: int, inputs: np.ndarray, *, implementation: str = "auto", dtype: str = "float32"
) -> Callable[[], None]:
    """Forward and backward through one BiLSTM on inputs [batch, time, features]."""
    layer = BiLSTM(
        inputs.shape[-1], hidden, implementation=implementation, dtype=dtype, rngs=nnx.Rngs(0)
    )
    mesh = make_mesh()
    rows = PartitionSpec("data") if len(inputs) % mesh.size == 0 else PartitionSpec()
    graphdef, state = nnx.split(layer)
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    x = jax.device_put(jnp.asarray(inputs, dtype), NamedSharding(mesh, rows))

    def loss(state, x):
        return jnp.mean(jnp.square(nnx.merge(graphdef, state)(x)[0]))

    # allow_int: the state also holds the counters of random streams.
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))

    def run() -> None:
        jax.block_until_ready(gradient(state, x))

    return run


def matmul_flops_per_second(n: int = 4096) -> Callable[[], float]:
    """Returns a function that measures a float32 product of two n x n matrices."""
    a = jnp.ones((n, n)) / n
    product = jax.jit(jnp.matmul)

    def measure() -> float:
        begun = time.perf_counter()
        product(a, a).block_until_ready()
        return 2 * n**3 / (time.perf_counter() - begun)

    return measure


def tile_flops_per_second(times: int = 2_000_000) -> Callable[[], float]:
    """Returns a function that measures the CPU kernel's register tile on all cores, in their L1 caches."""
    import numba

    from bahdanau_jax.layers.cpu_kernel.product import any_tile
    from bahdanau_jax.layers.cpu_kernel.simd import PANEL, ROW_BYTES, TILE_ROWS

    depth, tile = 128, any_tile()

    @numba.njit(nogil=True)
    def run(times, acc, rows, b):
        for _ in range(times):
            tile(TILE_ROWS, acc, ROW_BYTES, rows, 0, b, ROW_BYTES, depth)

    def one_core(times: int) -> None:
        sums, b = np.zeros((TILE_ROWS, PANEL), np.float32), np.zeros((depth, PANEL), np.float32)
        a = np.zeros((TILE_ROWS, depth), np.float32)
        rows = np.array([row.ctypes.data for row in a])
        run(times, sums.ctypes.data, rows.ctypes.data, b.ctypes.data)

    one_core(1)  # compiles

    def measure() -> float:
        begun = time.perf_counter()
        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(one_core, [times] * threads()))
        flops = 2 * TILE_ROWS * int(PANEL) * depth * times * threads()
        return flops / (time.perf_counter() - begun)

    return measure


RATES = {"matmul": matmul_flops_per_second, "tile": tile_flops_per_second}
