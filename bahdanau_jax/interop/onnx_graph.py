"""The classifier as an ONNX graph: `LSTM` nodes, additive attention, poolings and n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from bahdanau_jax.errors import InputError
from bahdanau_jax.layers.attention import BahdanauAttention
from bahdanau_jax.layers.lstm import BiLSTM
from bahdanau_jax.models.classifier import AttentionClassifier
from bahdanau_jax.models.language_model_states import SCALE
from bahdanau_jax.models.ngrams import (
    ENDING_SHARE,
    ENDING_WORDS,
    HASHES,
    NgramClassifier,
    ngram_kinds,
)
from bahdanau_jax.models.with_ngrams import WithNgrams
from bahdanau_jax.token_ids import PAD

_OPSET, _IR_VERSION = 18, 8  # ONNX Runtime 1.14 and newer read them
_ZERO = np.float32(0)


def to_onnx(model: nnx.Module, temperature: float = 1.0) -> Any:
    """Returns the model, without dropout, as an `onnx.ModelProto` from ids to probabilities and weights.

    Args:
      model: an AttentionClassifier in float32 with BahdanauAttention of one head, alone or WithNgrams.
      temperature: divides the logits.

    Raises:
      InputError: the model is another one; the message names the config's field. Or the package onnx is not
        installed.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise InputError("an .onnx file needs the package onnx: pip install onnx") from error
    network, graph = _checked(model), _Graph()
    text = _Text(graph)
    logits, weights = _network(graph, network, text)
    if isinstance(model, WithNgrams):
        share = model.ngram_share
        scales = [1 - share, share] if model.scales is None else model.scales[...]
        ours = _ngrams(graph, model.ngrams, text)
        scaled = [
            graph("Mul", x, np.float32(s)) for x, s in zip((logits, ours), scales, strict=True)
        ]
        logits = graph("Add", *scaled)
    logits = graph("Div", logits, np.float32(temperature))
    if network.output.kernel.shape[1] == 1:
        positive = graph("Sigmoid", logits)
        p = graph("Concat", graph("Sub", np.float32(1), positive), positive, axis=1)
    else:
        p = graph("Softmax", logits, axis=1)
    graph("Identity", p, outputs=["probabilities"])
    # `order` has each position once, so that every element of the first input is replaced.
    graph("ScatterElements", weights, text.order, weights, axis=1, outputs=["weights"])
    shapes = {
        "ids": (onnx.TensorProto.INT64, ["batch", "time"]),
        "probabilities": (onnx.TensorProto.FLOAT, ["batch", "classes"]),
        "weights": (onnx.TensorProto.FLOAT, ["batch", "time"]),
    }
    ids, *outputs = (helper.make_tensor_value_info(name, *x) for name, x in shapes.items())
    made = helper.make_model(
        helper.make_graph(graph.nodes, "bahdanau_jax", [ids], outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="bahdanau-jax",
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def _checked(model: Any) -> AttentionClassifier:
    """The network inside the model, if ONNX can hold it."""
    network = model.network if isinstance(model, WithNgrams) else model

    def kind(x: Any) -> str:
        return f"{type(x).__module__}:{type(x).__qualname__}"

    if type(network) is not AttentionClassifier:
        wrong = "target", kind(network), "bahdanau_jax:AttentionClassifier"
    elif type(network.attention) is not BahdanauAttention or network.attention.num_heads > 1:
        wrong = "attention", kind(network.attention), "bahdanau_jax:BahdanauAttention of one head"
    elif (dtype := jnp.dtype(network.output.dtype)) != jnp.float32:
        wrong = "dtype", dtype, "float32"
    else:
        return network
    raise InputError("config.model.{} is {}; an .onnx file holds only {}".format(*wrong))


class _Graph:
    """Nodes and constants of a graph; a call adds a node and returns the name of its first output."""

    def __init__(self):
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, operator: str, *inputs: Any, outputs: Sequence[str] = (), **attributes: Any):
        from onnx import helper

        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        outputs = outputs or [f"{operator}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, names, outputs, **attributes))
        return outputs[0]

    def _constant(self, value: Any) -> str:
        """Stores an array; Python's integers become int64."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def two(self, operator: str, *inputs: Any, **attributes: Any) -> tuple[str, str]:
        """Adds a node with two outputs, and returns both names."""
        names = [f"{operator}_{len(self.nodes)}_{i}" for i in range(2)]
        self(operator, *inputs, outputs=names, **attributes)
        return names[0], names[1]


class _Text:
    """The ids with all real ones in front, since `sequence_lens` leaves no other place to padding.

    Attributes: `ids` [batch, time]; `order` [batch, time], where each stood; `time` [1]; `position` [time];
    `length` [batch, 1], the number of real ids; `some` [batch, 1], whether a row has any; `real`
    [batch, time], where `ids` are real, and the same as `real_steps` [batch, time, 1].
    """

    def __init__(self, g: _Graph):
        mask = g("Not", g("Equal", "ids", PAD))
        self.time = g("Shape", "ids", start=1)
        self.position = g("Range", 0, g("Squeeze", self.time), 1)
        last = g("Add", self.position, self.time)
        key = g("Where", mask, self.position, last)
        _, self.order = g.two("TopK", key, self.time, axis=1, largest=0)
        self.ids = g("GatherElements", "ids", self.order, axis=1)
        self.length = g("ReduceSum", g("Cast", mask, to=7), [1])
        self.real = g("Less", self.position, self.length)
        self.some = g("Greater", self.length, 0)
        self.real_steps = g("Unsqueeze", self.real, [2])


def _network(g: _Graph, model: AttentionClassifier, text: _Text) -> tuple[str, str]:
    """The logits [batch, outputs] and the weights [batch, time] of the ids that stand in front."""
    # An empty row runs one step, which is masked below: not every runtime takes a length of 0.
    at_least_1 = g("Max", text.length, 1)
    lengths = g("Cast", g("Squeeze", at_least_1, [1]), to=6)
    ids = g("Transpose", text.ids)  # [time, batch]
    x = g("Gather", _array(model.embedding.embedding), ids)
    if model.language_model is not None:
        vectors = g("Gather", _array(model.language_model.embedding.embedding), ids)
        states, _ = _bilstm(g, model.language_model.encoder, vectors, lengths)
        x = g("Concat", x, g("Mul", states, np.float32(SCALE)), axis=2)
    state = ""
    for layer in model.encoder:
        x, state = _bilstm(g, layer, x, lengths)
    outputs = g("Where", text.real_steps, g("Transpose", x, perm=[1, 0, 2]), _ZERO)
    last = g("Reshape", g("Transpose", state, perm=[1, 0, 2]), [0, -1])
    last = g("Where", text.some, last, _ZERO)

    attention: Any = model.attention
    query = g("MatMul", last, _array(attention.query_kernel))
    query = g("Unsqueeze", g("Add", query, _array(attention.bias)), [1])
    keys = g("MatMul", outputs, _array(attention.key_kernel))
    v = _array(attention.score_kernel)
    if attention.score_scale is not None:
        v = _array(attention.score_scale) * v / np.linalg.norm(v)
    scores = g("Squeeze", g("MatMul", g("Tanh", g("Add", keys, query)), v[:, None]), [2])
    if model.mask_attention:
        weights = g("Softmax", g("Where", text.real, scores, np.float32(-1e30)), axis=1)
        weights = g("Where", text.real, weights, _ZERO)  # of an empty row
    else:
        weights = g("Softmax", scores, axis=1)

    pooled = []
    for name in model.pooling:
        if name == "attention":
            context = g("MatMul", g("Unsqueeze", weights, [1]), outputs)
            pooled.append(g("Squeeze", context, [1]))
        elif name == "last":
            pooled.append(last)
        elif name == "mean":
            total = g("ReduceSum", outputs, [1], keepdims=0)
            pooled.append(g("Div", total, g("Cast", at_least_1, to=1)))
        else:
            real = g("Where", text.real_steps, outputs, np.float32(-np.inf))
            largest = g("ReduceMax", real, [1], keepdims=0)
            pooled.append(g("Where", text.some, largest, _ZERO))
    features = g("Relu", _linear(g, model.hidden, g("Concat", *pooled, axis=1)))
    return _linear(g, model.output, features), weights


def _bilstm(g: _Graph, layer: BiLSTM, x: str, lengths: str) -> tuple[str, str]:
    """Outputs [time, batch, 2*hidden] of inputs [time, batch, features], and last states [2, batch, hidden]."""
    weights = [_lstm_weights(direction) for direction in (layer.forward, layer.backward)]
    hidden = layer.forward.recurrent_kernel.shape[0]
    kernels = (np.stack(both) for both in zip(*weights, strict=True))
    y, state = g.two("LSTM", x, *kernels, lengths, direction="bidirectional", hidden_size=hidden)
    return g("Reshape", g("Transpose", y, perm=[0, 2, 1, 3]), [0, 0, -1]), state


def _lstm_weights(layer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W [4*hidden, features], R [4*hidden, hidden] and B [8*hidden], with the gates in ONNX's order."""

    def reorder(x: np.ndarray) -> np.ndarray:
        i, f, c, o = np.split(x, 4, axis=-1)
        return np.concatenate([i, o, f, c], axis=-1)

    kernel, recurrent, bias = (
        reorder(_array(x)) for x in (layer.kernel, layer.recurrent_kernel, layer.bias)
    )
    return kernel.T, recurrent.T, np.concatenate([bias, np.zeros_like(bias)])


def _linear(g: _Graph, layer: nnx.Linear, x: str) -> str:
    return g("Gemm", x, _array(layer.kernel), _array(layer.bias))


def _array(parameter: Any) -> np.ndarray:
    return np.asarray(parameter[...], np.float32)


def _ngrams(g: _Graph, model: NgramClassifier, text: _Text) -> str:
    """The logits of `NgramClassifier`: with all real ids in front, the word before t stands at t - 1."""

    def modulo(x: str) -> str:
        return g("BitwiseAnd", x, 0xFFFFFFFF)

    def times(x: str, factor: int) -> str:
        """uint32 x * factor, in int64 without an overflow."""
        high = g("BitwiseAnd", g("Mul", x, factor >> 16), 0xFFFF)
        return modulo(g("Add", g("Mul", x, factor & 0xFFFF), g("Mul", high, 2**16)))

    def shifted(x: str, bits: int) -> str:
        return g("BitwiseXor", x, g("Div", x, 2**bits))

    def mix(x: str) -> str:
        return shifted(times(shifted(times(shifted(x, 16), 0x85EBCA6B), 13), 0xC2B2AE35), 16)

    def before(x: str, positions: str, steps: int) -> str:
        """x [batch, n] moved by `steps`, with any values in front."""
        return g("Gather", x, g("Max", g("Sub", positions, steps), 0), axis=1)

    space = model.rows if model.keys is None else HASHES
    last = g("Max", g("Div", text.length, ENDING_SHARE), ENDING_WORDS)
    ending = g("Sub", text.length, last)  # [batch, 1], where it begins
    each = []
    kinds = ngram_kinds(model.n, gaps=model.gaps, ending=model.ending)
    for kind in kinds:
        hashed = g("BitwiseXor", mix(modulo(g("Add", text.ids, kind.n))), kind.salt)
        for k in range(1, kind.span):
            if k != kind.gap:
                word = times(before(text.ids, text.position, k), 0x9E3779B1)
                hashed = mix(g("BitwiseXor", hashed, word))
        first = g("Sub", text.position, kind.span - 1)
        occurs = g("And", text.real, g("GreaterOrEqual", first, 0))
        if kind.ending:
            occurs = g("And", occurs, g("GreaterOrEqual", first, ending))
        each.append(g("Where", occurs, g("Mod", hashed, space), -1))
    count = g("Mul", text.time, len(kinds))
    found, _ = g.two("TopK", g("Concat", *each, axis=1), count, axis=1)
    place = g("Range", 0, g("Squeeze", count), 1)
    again = g("And", g("Equal", found, before(found, place, 1)), g("Greater", place, 0))
    occurs = g("And", g("GreaterOrEqual", found, 0), g("Not", again))
    if model.keys is not None:
        found, is_key = _search(g, np.asarray(model.keys[...], np.int64), found)
        occurs = g("And", occurs, is_key)
    found, occurs = g("Max", found, 0), g("Unsqueeze", occurs, [2])
    scales = _array(model.squared_scales)[:, None]
    weights, squared = (
        g("ReduceSum", g("Where", occurs, g("Gather", table, found), _ZERO), [1], keepdims=0)
        for table in (_array(model.weights), scales)
    )
    norm = g("Sqrt", g("Where", g("Greater", squared, _ZERO), squared, np.float32(1)))
    return g("Add", g("Div", weights, norm), _array(model.bias))


def _search(g: _Graph, keys: np.ndarray, found: str) -> tuple[str, str]:
    """The place of each number among increasing keys, and whether it is one; by bisection."""
    keys_name = g("Identity", keys)
    place = g("Sub", g("Mul", found, 0), 1)  # the last key that is not above the number; -1: none
    for bit in reversed(range(len(keys).bit_length())):
        next_place = g("Add", place, 2**bit)
        inside = g("Less", next_place, len(keys))
        key = g("Gather", keys_name, g("Min", next_place, len(keys) - 1))
        place = g("Where", g("And", inside, g("LessOrEqual", key, found)), next_place, place)
    place = g("Max", place, 0)
    return place, g("Equal", g("Gather", keys_name, place), found)
