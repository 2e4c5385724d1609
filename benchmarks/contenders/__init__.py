"""The contenders of the benchmark. Each module here defines `Network` and `make_layer`.

`Network(sizes, batch_size=..., buckets=...)` has `train(ids, labels) -> loss` and `predict(rows) -> logits`.
`make_layer(hidden, inputs)` returns a function that runs one bidirectional layer forward and backward.
Those that only predict have neither `train` nor `make_layer`.
"""

import dataclasses
import os
from typing import Any


def threads() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Contender:
    """How a contender is started, and how its results are shown."""

    module: str  # in this folder
    packages: tuple[str, ...]  # must be importable; their versions are recorded
    label: str
    colour: str = ""
    install: str = ""  # how to install it; "" for what is no peer
    keras_backend: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # of Network
    trains: bool = True


CONTENDERS = {
    "ours": Contender("ours", ("jax", "flax"), "bahdanau-jax", "#c1272d"),
    "nnx": Contender("nnx", ("jax", "flax"), "flax.nnx", "#0072b2", "pip install flax"),
    "keras-jax": Contender(
        "keras", ("keras", "jax"), "Keras on JAX", "#e69f00", "pip install keras", "jax"
    ),
    "keras-tensorflow": Contender(
        "keras",
        ("keras", "tensorflow"),
        "Keras on TensorFlow",
        "#009e73",
        "pip install keras tensorflow-cpu, or name another Python with --tensorflow_python",
        "tensorflow",
    ),
    "torch": Contender(
        "torch",
        ("torch",),
        "PyTorch nn.LSTM",
        "#7f5fa8",
        "pip install torch --index-url https://download.pytorch.org/whl/cpu",
    ),
    "torch-packed": Contender(
        "torch", ("torch",), "PyTorch, packed", "#b9a7d6", options={"packed": True}
    ),
    "onnxruntime": Contender(
        "onnxruntime",
        ("onnxruntime", "onnx"),
        "ONNX Runtime",
        "#56b4e9",
        "pip install onnx onnxruntime",
        trains=False,
    ),
    "onnxruntime-int8": Contender(
        "onnxruntime",
        ("onnxruntime", "onnx"),
        "ONNX Runtime, int8",
        "#8fcdf0",
        options={"weights": "int8"},
        trains=False,
    ),
    "onnxruntime-padded": Contender(
        "onnxruntime",
        ("onnxruntime", "onnx"),
        "ONNX Runtime, padded",
        "#bfe3f7",
        options={"by_length": False},
        trains=False,
    ),
    "matmul": Contender("ours", ("jax",), "one large product"),
}
PEERS = [name for name, contender in CONTENDERS.items() if contender.install]
# The same peers with other settings, in the section "predict".
VARIANTS = {
    "torch": ("torch-packed",),
    "onnxruntime": ("onnxruntime-int8", "onnxruntime-padded"),
}
