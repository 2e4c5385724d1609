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
    rounded: bool = False  # computes products with fewer than 32 bits
    by_length: bool = False  # predicts batches of reviews of about the same length


CONTENDERS = {
    "ours": Contender("ours", ("jax", "flax"), "bahdanau-jax", "#c1272d", by_length=True),
    "ours-int16": Contender(
        "ours",
        ("jax", "flax"),
        "bahdanau-jax, int16",
        "#e0787b",
        options={"products": "int16"},
        rounded=True,
        trains=False,
        by_length=True,
    ),
    # Only if asked for. It fails in one line where the CPU has no AVX-512.
    "ours-bfloat16": Contender(
        "ours",
        ("jax", "flax"),
        "bahdanau-jax, bfloat16",
        "#8c1a1e",
        options={"dtype": "bfloat16", "implementation": "native"},
        rounded=True,
        by_length=True,
    ),
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
    "torch-by-length": Contender(
        "torch",
        ("torch",),
        "PyTorch, by length",
        "#9a83bd",
        options={"by_length": True},
        by_length=True,
    ),
    "torch-compiled": Contender(
        "torch",
        ("torch",),
        "PyTorch, by length, compiled",
        "#a78fc9",
        options={"by_length": True, "compiled": True},
        by_length=True,
    ),
    "torch-bfloat16": Contender(
        "torch",
        ("torch",),
        "PyTorch, by length, bfloat16",
        "#c9bce0",
        options={"by_length": True, "bfloat16": True},
        rounded=True,
        by_length=True,
    ),
    "keras-tensorflow-xla": Contender(
        "keras",
        ("keras", "tensorflow"),
        "Keras on TensorFlow, XLA",
        "#66c2a5",
        keras_backend="tensorflow",
        options={"xla": True},
    ),
    "onnxruntime": Contender(
        "onnxruntime",
        ("onnxruntime", "onnx"),
        "ONNX Runtime",
        "#56b4e9",
        "pip install onnx onnxruntime",
        trains=False,
        by_length=True,
    ),
    "onnxruntime-int8": Contender(
        "onnxruntime",
        ("onnxruntime", "onnx"),
        "ONNX Runtime, int8",
        "#8fcdf0",
        options={"weights": "int8"},
        rounded=True,
        trains=False,
        by_length=True,
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
    "tile": Contender("ours", ("jax", "numba"), "the CPU kernel's register tile"),
}
RATES = ("matmul", "tile")  # no networks: rates of this machine
OURS = ("ours", "ours-int16")
PEERS = [name for name, contender in CONTENDERS.items() if contender.install]
# The same with other settings, in the sections "predict" and, if they train, "step".
VARIANTS = {
    "ours": ("ours-int16",),
    "keras-tensorflow": ("keras-tensorflow-xla",),
    "torch": ("torch-packed", "torch-by-length", "torch-compiled", "torch-bfloat16"),
    "onnxruntime": ("onnxruntime-int8", "onnxruntime-padded"),
}
