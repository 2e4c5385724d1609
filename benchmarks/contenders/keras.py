"""Keras 3 on the backend in KERAS_BACKEND, compiled and with masks."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.data import pad
from benchmarks.network import Sizes


def make_model(sizes: Sizes) -> keras.Model:
    """The notebook's network with Keras's own AdditiveAttention."""
    ids = layers.Input((None,), dtype="int32")
    x = layers.Embedding(
        sizes.vocab_size, sizes.embedding_features, mask_zero=True, name="embedding"
    )(ids)
    states = []
    for i in range(sizes.num_layers):
        last = i == sizes.num_layers - 1
        lstm = layers.LSTM(
            sizes.hidden_features, return_sequences=True, return_state=last, dropout=sizes.dropout
        )
        x = layers.Bidirectional(lstm, name=f"bilstm_{i}")(x)
        if last:
            x, *states = x
    query = layers.Concatenate()([states[0], states[2]])  # last h of each direction
    query = layers.Reshape((1, -1))(layers.Dense(sizes.attention_units, name="query")(query))
    keys = layers.Dense(sizes.attention_units, use_bias=False, name="keys")(x)
    context = layers.AdditiveAttention(name="attention")([query, x, keys])
    x = layers.Reshape((2 * sizes.hidden_features,))(context)
    x = layers.Dense(sizes.head_features, activation="relu", name="hidden")(x)
    x = layers.Dropout(sizes.head_dropout)(x)
    return keras.Model(ids, layers.Dense(1, name="output")(x))


class Network:
    """The model, compiled with Adam.

    `xla` compiles it with XLA also on TensorFlow, where Keras's default, "auto", does not compile an LSTM.
    """

    def __init__(self, sizes: Sizes, *, batch_size: int, buckets: Sequence[int], xla: bool = False):
        keras.utils.set_random_seed(0)
        self._batch_size, self._length = batch_size, buckets[-1]
        self.model: Any = make_model(sizes)
        self.model.compile(
            jit_compile=True if xla else "auto",
            optimizer=keras.optimizers.Adam(1e-3),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
        )

    def train(self, ids: np.ndarray, labels: np.ndarray) -> float:
        return float(self.model.train_on_batch(ids, labels[:, None])[0])

    def predict(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [n]."""
        ids = pad(rows, self._length)
        return np.asarray(self.model.predict(ids, batch_size=self._batch_size, verbose=0))[:, 0]


def make_layer(hidden: int, inputs: np.ndarray) -> Callable[[], None]:
    """Forward and backward through one Bidirectional layer on inputs [batch, time, features]."""
    layer = layers.Bidirectional(layers.LSTM(hidden, return_sequences=True))
    layer.build(inputs.shape)
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_layer(layer, inputs)
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(inputs)
    trainable, rest = (
        [variable.value for variable in variables]
        for variables in (layer.trainable_variables, layer.non_trainable_variables)
    )

    def loss(trainable, x):
        return jnp.mean(jnp.square(layer.stateless_call(trainable, rest, x)[0]))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))

    def run() -> None:
        jax.block_until_ready(gradient(trainable, x))

    return run


def _tensorflow_layer(layer, inputs: np.ndarray) -> Callable[[], None]:
    tf: Any = importlib.import_module("tensorflow")

    x = tf.constant(inputs)
    weights = [variable.value for variable in layer.trainable_variables]

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(layer(x)))
        return tape.gradient(loss, [*weights, x])

    def run() -> None:
        gradient()[-1].numpy()

    return run
