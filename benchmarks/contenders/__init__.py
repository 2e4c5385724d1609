"""The contenders of the benchmark. Each module here defines `Network` and `make_layer`.

`Network(sizes, batch_size=..., buckets=...)` has `train(ids, labels) -> loss` and `predict(rows) -> logits`.
`make_layer(hidden, inputs)` returns a function that runs one bidirectional layer forward and backward.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Contender:
    """How a contender is started, and how its results are shown."""

    module: str  # in this folder
    packages: tuple[str, ...]  # must be importable; their versions are recorded
    label: str
    colour: str = ""
    install: str = ""  # how to install it; "" for what is no peer
    keras_backend: str = ""


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
    "torch-packed": Contender("torch", ("torch",), "PyTorch, packed", "#b9a7d6"),
    "matmul": Contender("ours", ("jax",), "one large product"),
}
PEERS = [name for name, contender in CONTENDERS.items() if contender.install]
