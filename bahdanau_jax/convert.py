"""Weights from PyTorch's `nn.LSTM` and from a Keras model of the notebook's network into ours, and back.

Gates stand in the same order everywhere (i, f, g, o). PyTorch keeps matrices transposed and two biases, of
which only the sum counts; Keras keeps what we keep. Nothing here imports either: arrays come in and go out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.errors import InputError
from bahdanau_jax.lstm import BiLSTM
from bahdanau_jax.weights import set_weights, weights_of


def bilstm_from_torch(
    state_dict: Mapping[str, Any], layers: Sequence[BiLSTM], *, prefix: str = ""
) -> None:
    """Puts the weights of a bidirectional `torch.nn.LSTM` of n layers into n BiLSTMs.

    Args:
      state_dict: its `state_dict()`, of tensors on the CPU or of arrays.
      layers: are changed.
      prefix: what stands before the names, as "encoder." where the LSTM is part of a model.

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
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            names = [
                f"{kind}_l{i}{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
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
    """The way back: what `torch.nn.LSTM(..., bidirectional=True).load_state_dict` takes, as arrays.

    The second bias is zero.
    """
    found = {}
    for i, layer in enumerate(layers):
        weights = weights_of(layer)
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            bias = weights[f"{direction}.bias"]
            for kind, x in (
                ("weight_ih", weights[f"{direction}.kernel"].T),
                ("weight_hh", weights[f"{direction}.recurrent_kernel"].T),
                ("bias_ih", bias),
                ("bias_hh", np.zeros_like(bias)),
            ):
                found[f"{prefix}{kind}_l{i}{suffix}"] = np.ascontiguousarray(x)
    return found


# What `get_weights()` of each of the notebook's layers gives, by our names; "" is no part of ours.
_DIRECTION = ("kernel", "recurrent_kernel", "bias")
_BIDIRECTIONAL = [f"{way}.{name}" for way in ("forward", "backward") for name in _DIRECTION]


def classifier_from_keras(layers: Sequence[Sequence[Any]], model: AttentionClassifier) -> None:
    """Puts the weights of the notebook's network in Keras into an AttentionClassifier.

    Args:
      layers: `[layer.get_weights() for layer in keras_model.layers if layer.weights]`, in the order of the
        network: the embedding, each Bidirectional(LSTM), the attention (Dense layers W1 for the outputs, W2
        for the state and V), and the two last Dense layers. `keras_files.read_keras` reads them from a file.
      model: of the same sizes; is changed. It must have `mask_attention=False` to give the same
        probabilities where there is padding: the notebook's attention is not masked.

    Raises:
      InputError: the layers are not these, or of other sizes than the model's.

    The score's own bias, which the softmax cancels, is dropped.
    """
    set_weights(model, names_from_keras(layers), where="the Keras model")


def names_from_keras(layers: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
    """The weights that `classifier_from_keras` takes, by our names."""
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
    """The way back: for each layer of the notebook's network what `layer.set_weights` takes.

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
