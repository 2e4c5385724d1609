"""Converts weights between our layers and PyTorch's `nn.LSTM` or the notebook's network in Keras.

All three order the gates i, f, g, o. PyTorch transposes the matrices and keeps two biases, of which only the
sum matters; Keras's layout is ours. Arrays go in and come out: this module imports neither framework.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bahdanau_jax.errors import InputError
from bahdanau_jax.interop.safetensors import set_weights, weights_of
from bahdanau_jax.layers.lstm import BiLSTM
from bahdanau_jax.models.classifier import AttentionClassifier

_DIRECTIONS = (("forward", ""), ("backward", "_reverse"))  # ours, PyTorch's suffix
_TORCH = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def bilstm_from_torch(
    state_dict: Mapping[str, Any], layers: Sequence[BiLSTM], *, prefix: str = ""
) -> None:
    """Copies the weights of a bidirectional `torch.nn.LSTM` of n layers into n BiLSTMs.

    Args:
      state_dict: the LSTM's `state_dict()`, of CPU tensors or arrays.
      layers: are changed.
      prefix: of the names, such as "encoder." if the LSTM is part of a model.

    Raises:
      InputError: weights are missing, left over or of another shape.
    """
    found = {
        name.removeprefix(prefix): np.asarray(x)
        for name, x in state_dict.items()
        if name.startswith(prefix)
    }
    for i, layer in enumerate(layers):
        weights = {}
        for direction, suffix in _DIRECTIONS:
            names = [f"{kind}_l{i}{suffix}" for kind in _TORCH]
            missing = [prefix + name for name in names if name not in found]
            if missing:
                raise InputError(
                    f"the state_dict has no {missing[0]}; expected a bidirectional LSTM's"
                )
            kernel, recurrent_kernel, bias, second_bias = (found.pop(name) for name in names)
            weights[f"{direction}.kernel"] = kernel.T
            weights[f"{direction}.recurrent_kernel"] = recurrent_kernel.T
            weights[f"{direction}.bias"] = bias + second_bias
        set_weights(layer, weights, where=f"layer {i} of the state_dict")
    left = [prefix + name for name in found if re.fullmatch(r"(weight|bias)_\w+_l\d+\w*", name)]
    if left:
        raise InputError(f"the state_dict also has {left[0]}; expected {len(layers)} layers")


def bilstm_to_torch(layers: Sequence[BiLSTM], *, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns arrays that `torch.nn.LSTM(..., bidirectional=True).load_state_dict` takes as tensors.

    The second bias is zero.
    """
    found = {}
    for i, layer in enumerate(layers):
        weights = weights_of(layer)
        for direction, suffix in _DIRECTIONS:
            kernel, recurrent_kernel, bias = (
                weights[f"{direction}.{name}"] for name in ("kernel", "recurrent_kernel", "bias")
            )
            values = (kernel.T, recurrent_kernel.T, bias, np.zeros_like(bias))
            for kind, x in zip(_TORCH, values, strict=True):
                found[f"{prefix}{kind}_l{i}{suffix}"] = np.ascontiguousarray(x)
    return found


# Our names of the arrays that `get_weights()` of a Bidirectional(LSTM) returns.
_BIDIRECTIONAL = [
    f"{direction}.{name}"
    for direction, _ in _DIRECTIONS
    for name in ("kernel", "recurrent_kernel", "bias")
]


def classifier_from_keras(layers: Sequence[Sequence[Any]], model: AttentionClassifier) -> None:
    """Copies the weights of the notebook's network in Keras into an AttentionClassifier.

    Drops the bias of the score: it cancels in the softmax.

    Args:
      layers: `[layer.get_weights() for layer in keras_model.layers if layer.weights]`, in the order of the
        network: the embedding, each Bidirectional(LSTM), the attention (Dense layers W1 for the outputs, W2
        for the state and V), and the last two Dense layers. `keras_files.read_keras` reads them from a file.
      model: of the same sizes; is changed. Only with `mask_attention=False` does it give Keras's
        probabilities for padded rows: the notebook's attention has no mask.

    Raises:
      InputError: the layers are others, or do not have the model's sizes.
    """
    set_weights(model, names_from_keras(layers), where="the Keras model")


def names_from_keras(layers: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
    """Returns the weights that `classifier_from_keras` takes, by our names."""
    count = max(len(layers) - 4, 1)
    sizes = [1, *[6] * count, 6, 2, 2]
    if [len(layer) for layer in layers] != sizes:
        raise InputError(
            f"the Keras model's layers hold {[len(layer) for layer in layers]} weights; expected {sizes}: "
            f"embedding, {count} Bidirectional(LSTM), attention of W1, W2 and V, Dense, Dense"
        )
    arrays = [[np.asarray(x) for x in layer] for layer in layers]
    weights = {"embedding.embedding": arrays[0][0]}
    for i, layer in enumerate(arrays[1 : 1 + count]):
        names = (f"encoder.{i}.{name}" for name in _BIDIRECTIONAL)
        weights |= dict(zip(names, layer, strict=True))
    w1, b1, w2, b2, v, _ = arrays[1 + count]
    weights |= {
        "attention.key_kernel": w1,
        "attention.query_kernel": w2,
        "attention.bias": b1 + b2,
        "attention.score_kernel": v[:, 0],
    }
    for name, (kernel, bias) in zip(("hidden", "output"), arrays[2 + count :], strict=True):
        weights |= {f"{name}.kernel": kernel, f"{name}.bias": bias}
    return weights


def classifier_to_keras(model: AttentionClassifier) -> list[list[np.ndarray]]:
    """Returns for each layer of the notebook's network the arrays that `layer.set_weights` takes.

    Example::

        layers = [layer for layer in keras_model.layers if layer.weights]
        for layer, weights in zip(layers, classifier_to_keras(model), strict=True):
            layer.set_weights(weights)
    """
    weights = weights_of(model)
    bias = weights["attention.bias"]
    return [
        [weights["embedding.embedding"]],
        *(
            [weights[f"encoder.{i}.{name}"] for name in _BIDIRECTIONAL]
            for i in range(len(model.encoder))
        ),
        [
            weights["attention.key_kernel"],
            np.zeros_like(bias),
            weights["attention.query_kernel"],
            bias,
            weights["attention.score_kernel"][:, None],
            np.zeros(1, np.float32),
        ],
        *([weights[f"{name}.kernel"], weights[f"{name}.bias"]] for name in ("hidden", "output")),
    ]
