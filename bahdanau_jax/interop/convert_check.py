"""Checks converted weights: runs our layers and the other framework's layers on the same input.

Each function imports its framework, PyTorch or Keras, when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from bahdanau_jax.errors import InputError
from bahdanau_jax.layers.lstm import BiLSTM
from bahdanau_jax.models.classifier import AttentionClassifier
from bahdanau_jax.models.probabilities import probabilities


def difference_from_torch(
    state_dict: Mapping[str, Any], layers: Sequence[BiLSTM], *, prefix: str = ""
) -> float:
    """Returns the largest difference between our outputs and those of `torch.nn.LSTM` with these weights.

    The input is random, [3, 11, features], with padding. Outputs lie between -1 and 1.

    Raises:
      InputError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError("comparing needs PyTorch: pip install torch") from error
    recurrent, kernel = (getattr(layers[0].forward, x) for x in ("recurrent_kernel", "kernel"))
    theirs = torch.nn.LSTM(
        kernel.shape[0],
        recurrent.shape[0],
        num_layers=len(layers),
        bidirectional=True,
        batch_first=True,
    )
    wanted = {name: state_dict[prefix + name] for name in theirs.state_dict()}
    theirs.load_state_dict({name: torch.tensor(np.array(x)) for name, x in wanted.items()})
    lengths = [11, 1, 6]
    x = np.random.default_rng(0).normal(size=(3, 11, kernel.shape[0])).astype(np.float32)
    mask = np.arange(11) < np.array(lengths)[:, None]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        want = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)[0]
    got = jnp.asarray(x)
    for layer in layers:
        layer = nnx.view(layer, deterministic=True)
        got, _ = layer(got, jnp.asarray(mask))
    return float(np.abs(np.asarray(got) - want.numpy()).max())


def difference_from_keras(
    layers: Sequence[Sequence[Any]],
    model: AttentionClassifier,
    ids: np.ndarray | None = None,
) -> float:
    """Returns the largest difference between our probabilities and those of the notebook's network in Keras.

    Args:
      layers: the weights for Keras, as `convert.classifier_from_keras` takes them.
      model: with `mask_attention=False`, as in the notebook.
      ids: int32 [n, time], 0 for padding; None: 16 random rows, some of them padded.

    Raises:
      InputError: Keras is not installed.
    """
    arrays = [[np.asarray(x) for x in layer] for layer in layers]
    if ids is None:
        rng = np.random.default_rng(0)
        ids = rng.integers(1, len(arrays[0][0]), (16, 50)).astype(np.int32)
        ids = np.where(np.arange(50) < rng.integers(1, 51, (16, 1)), ids, 0)
    theirs = notebook_network(arrays)
    want = np.asarray(theirs.predict(ids, batch_size=16, verbose=0))
    model = nnx.view(model, deterministic=True)
    got = np.concatenate(
        [np.asarray(probabilities(model(jnp.asarray(x))[0])) for x in _batches(ids)]
    )
    return float(np.abs((got[:, 1:] if want.shape[1] == 1 else got) - want).max())


def _batches(ids: np.ndarray) -> list[np.ndarray]:
    return [ids[i : i + 16] for i in range(0, len(ids), 16)]


def notebook_network(arrays: Sequence[Sequence[np.ndarray]]) -> Any:
    """Builds the notebook's network in Keras, with these weights."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras's default, TensorFlow, may be missing
    try:
        import keras
    except ImportError as error:
        raise InputError("comparing needs Keras: pip install keras") from error
    layers, ops = keras.layers, keras.ops
    embedding, *lstms, attention, hidden, output = arrays

    class Attention(layers.Layer):
        """softmax(V tanh(W1 outputs + W2 state)) over all positions, padding included."""

        supports_masking = True  # it ignores the mask; this silences Keras's warning

        def build(self, outputs_shape: Any, state_shape: Any) -> None:
            """Creates the six weights."""
            self.parts = [self.add_weight(shape=x.shape) for x in attention]

        def call(self, outputs: Any, state: Any) -> Any:
            """Returns the context [batch, features] of outputs [batch, time, features] and a state."""
            w1, b1, w2, b2, v, bias = self.parts
            query = ops.expand_dims(ops.matmul(state, w2) + b2, 1)
            score = ops.matmul(ops.tanh(ops.matmul(outputs, w1) + b1 + query), v) + bias
            return ops.sum(ops.softmax(score, axis=1) * outputs, axis=1)

        def compute_output_shape(self, outputs_shape: Any, state_shape: Any) -> Any:
            """Returns the shape of the context."""
            return (outputs_shape[0], outputs_shape[2])

    ids = layers.Input((None,), dtype="int32")
    x, states = layers.Embedding(*embedding[0].shape, mask_zero=True)(ids), []
    for weights in lstms:
        lstm = layers.LSTM(weights[1].shape[0], return_sequences=True, return_state=True)
        x, *states = layers.Bidirectional(lstm)(x)
    x = Attention()(x, layers.Concatenate()([states[0], states[2]]))
    x = layers.Dense(hidden[0].shape[1], activation="relu")(x)
    outputs = output[0].shape[1]
    x = layers.Dense(outputs, activation="sigmoid" if outputs == 1 else "softmax")(x)
    model = keras.Model(ids, x)
    with_weights = [layer for layer in model.layers if layer.weights]
    for layer, weights in zip(with_weights, arrays, strict=True):
        layer.set_weights(list(weights))
    return model
