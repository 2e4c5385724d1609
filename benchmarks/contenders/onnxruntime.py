"""ONNX Runtime: ours, exported as `experiments.export --output=x.onnx` does. It predicts and cannot train."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from bahdanau_jax.interop.onnx_graph import to_onnx
from bahdanau_jax.training.steps import MICROBATCH_ROWS
from benchmarks.contenders import threads
from benchmarks.contenders.ours import make_model
from benchmarks.data import pad
from benchmarks.network import Sizes

BATCH = MICROBATCH_ROWS  # as ours predicts on a CPU


class Network:
    """The classifier as ONNX Runtime runs it.

    Args:
      sizes: of the network.
      batch_size, buckets: as for the other contenders; only the largest bucket counts here.
      weights: "float32", or "int8" for dynamic quantization of the products.
      by_length: batches of reviews of about the same length, padded to the longest one. Otherwise batches as
        they come, padded to the largest bucket.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        batch_size: int,
        buckets: Sequence[int],
        weights: str = "float32",
        by_length: bool = True,
    ):
        del batch_size
        self._by_length, self._longest = by_length, buckets[-1]
        model = make_model(sizes)
        model.eval()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            file.write_bytes(to_onnx(model).SerializeToString())
            if weights == "int8":
                from onnxruntime.quantization import QuantType, quantize_dynamic

                quantize_dynamic(file, Path(folder) / "int8.onnx", weight_type=QuantType.QInt8)
                file = Path(folder) / "int8.onnx"
            self._session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )

    def predict(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [n]."""
        lengths = [len(row) for row in rows]
        order = np.argsort(lengths, kind="stable") if self._by_length else np.arange(len(rows))
        logits = np.empty(len(rows), np.float32)
        for i in range(0, len(rows), BATCH):
            chosen = order[i : i + BATCH]
            length = max(lengths[row] for row in chosen) if self._by_length else self._longest
            ids = pad([rows[row] for row in chosen], length).astype(np.int64)
            (p,) = self._session.run(["probabilities"], {"ids": ids})
            p = np.asarray(p, np.float64)
            logits[chosen] = np.log(p[:, 1]) - np.log(p[:, 0])
        return logits
