"""flax.nnx: RNN and Bidirectional with OptimizedLSTMCell.

`seq_lengths` keeps padding out of both directions. The last states are gathered from the outputs, since
Bidirectional would store the carry of every step to return the last one. Both directions share one dropout
mask per review.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.data import pad
from benchmarks.network import Sizes


class Classifier(nnx.Module):
    """The notebook's network."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
        width, units = 2 * sizes.hidden_features, sizes.attention_units
        features = [sizes.embedding_features] + [width] * (sizes.num_layers - 1)
        self.embedding = nnx.Embed(sizes.vocab_size, sizes.embedding_features, rngs=rngs)
        self.dropout = nnx.Dropout(sizes.dropout, broadcast_dims=(1,), rngs=rngs)
        self.encoder: Any = nnx.List(_bilstm(n, sizes.hidden_features, rngs) for n in features)
        self.query = nnx.Linear(width, units, rngs=rngs)
        self.key = nnx.Linear(width, units, use_bias=False, rngs=rngs)
        self.score = nnx.Linear(units, 1, use_bias=False, rngs=rngs)
        self.hidden = nnx.Linear(width, sizes.head_features, rngs=rngs)
        self.head_dropout = nnx.Dropout(sizes.head_dropout, rngs=rngs)
        self.output = nnx.Linear(sizes.head_features, 1, rngs=rngs)

    def __call__(self, ids):
        """Logits [batch] of ids [batch, time]."""
        mask = ids != 0
        lengths = mask.sum(axis=1)
        x = self.embedding(ids)
        for layer in self.encoder:
            x = layer(self.dropout(x), seq_lengths=lengths)  # [batch, time, 2*hidden]
        forward, backward = jnp.split(x, 2, axis=-1)
        last = forward[jnp.arange(len(ids)), lengths - 1]
        query = self.query(jnp.concatenate([last, backward[:, 0]], axis=-1))
        scores = self.score(jnp.tanh(query[:, None] + self.key(x)))[:, :, 0]
        weights = jax.nn.softmax(jnp.where(mask, scores, -1e9), axis=-1)
        context = jnp.einsum("bt,btv->bv", weights, x)
        return self.output(self.head_dropout(nnx.relu(self.hidden(context))))[:, 0]


def _bilstm(features: int, hidden: int, rngs: nnx.Rngs) -> Any:
    return nnx.Bidirectional(
        nnx.RNN(nnx.OptimizedLSTMCell(features, hidden, rngs=rngs)),
        nnx.RNN(nnx.OptimizedLSTMCell(features, hidden, rngs=rngs)),
    )


class Network:
    """The classifier with Adam, as in Flax's examples."""

    def __init__(self, sizes: Sizes, *, batch_size: int, buckets: Sequence[int]):
        self._batch_size, self._length = batch_size, buckets[-1]
        self.model = Classifier(sizes, rngs=nnx.Rngs(0))
        self._optimizer = nnx.Optimizer(self.model, optax.adam(1e-3, eps=1e-7), wrt=nnx.Param)
        self._deterministic = nnx.view(self.model, deterministic=True)

    def train(self, ids: np.ndarray, labels: np.ndarray) -> float:
        return float(jax.block_until_ready(self.start(ids, labels)))

    def start(self, ids: np.ndarray, labels: np.ndarray) -> jax.Array:
        """Takes one step without waiting for it."""
        return _train_step(self.model, self._optimizer, ids, labels)

    def predict(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [n], from batches padded to the largest length."""
        batches = [
            _predict_step(self._deterministic, pad(rows[i : i + self._batch_size], self._length))
            for i in range(0, len(rows), self._batch_size)
        ]
        return np.concatenate(jax.device_get(batches))


@nnx.jit
def _train_step(model, optimizer, ids, labels):
    def loss_fn(model):
        return optax.sigmoid_binary_cross_entropy(model(ids), labels.astype(jnp.float32)).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def _predict_step(model, ids):
    return model(ids)


def make_layer(hidden: int, inputs: np.ndarray) -> Callable[[], None]:
    """Forward and backward through one Bidirectional layer on inputs [batch, time, features]."""
    layer = _bilstm(inputs.shape[-1], hidden, nnx.Rngs(0))
    x = jnp.asarray(inputs)

    @nnx.jit
    def gradient(layer, x):
        return nnx.grad(lambda layer, x: jnp.mean(jnp.square(layer(x))), argnums=(0, 1))(layer, x)

    def run() -> None:
        jax.block_until_ready(gradient(layer, x))

    return run
