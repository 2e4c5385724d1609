"""Compares an implementation with the scan on a small masked input, on the GPU at hand."""

import threading
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bahdanau_jax.layers import scan
from bahdanau_jax.layers.layer import Arguments, Layer

# The kinds of products: the dtype, the precision that is asked for, and the relative error that may be.
FLOAT32 = (np.dtype(np.float32), "highest", 1e-4)
TF32 = (np.dtype(np.float32), "tensorfloat32", 1e-2)
BFLOAT16 = (np.dtype(jnp.bfloat16), None, 5e-2)


def on_a_gpu(module: ModuleType, name: str) -> str | None:
    """Returns how the implementation differs from the scan, or None; also None if there is no GPU."""
    if jax.default_backend() != "gpu":
        return None
    found: list[str | None] = []
    # A thread has its own trace, mesh and configuration: this may run while a program is traced.
    thread = threading.Thread(target=lambda: found.append(differs_from_scan(module, name)))
    thread.start()
    thread.join()
    return found[0] if found else f"the comparison of {name} with the scan was cut short"


def differs_from_scan(module: ModuleType, name: str) -> str | None:
    """Compares results and gradients with those of the scan in float32.

    Args:
      module: has `run_saving`, `gradients`, `record_size`, and the kinds of its `PRODUCTS`.
      name: what messages call it.
    """
    for dtype, precision, tolerance in module.PRODUCTS:
        arguments, of_results = _draw(dtype)
        try:
            with jax.default_matmul_precision(precision):
                got = _results_and_gradients(module, dtype, arguments, of_results)
            with jax.default_matmul_precision("highest"):
                exact = jax.tree.map(_float32, (arguments, of_results))
                want = _results_and_gradients(_Scan, FLOAT32[0], *exact)
        except Exception as error:  # whatever the plugin, XLA or the driver raises
            return f"{name} failed on a small input ({' '.join(str(error).split())[:150]})"
        worst = max(
            float(np.abs(np.asarray(a, np.float32) - b).max() / np.abs(b).max())
            for a, b in zip(got, want, strict=True)
        )
        if not worst < tolerance:  # a NaN fails
            return f"{name} differs from the scan by {worst:.1e}"
    return None


class _Scan:
    """The scan, called as the other implementations are."""

    @staticmethod
    def record_size(layer: Layer, arguments: Arguments) -> int:
        return 0

    @staticmethod
    def run_saving(layer: Layer, arguments: Arguments, size: int):
        return scan.run_saving(layer, arguments)

    gradients = staticmethod(scan.gradients)


def _results_and_gradients(module, dtype: np.dtype, arguments: Arguments, of_results):
    layer = Layer(reverse=False, dtype=dtype)

    def run(arguments, of_results):
        size = module.record_size(layer, arguments)
        results, records = module.run_saving(layer, arguments, size)
        return *results, *module.gradients(layer, arguments, records, of_results)

    return jax.device_get(jax.jit(run)(arguments, of_results))


def _draw(dtype: np.dtype) -> tuple[Arguments, tuple]:
    """Draws a small masked input, and the gradients of its results."""
    rng = np.random.default_rng(0)
    batch, time, features, hidden = 4, 7, 5, 3

    def draw(*shape, dtype=FLOAT32[0]):
        return jnp.asarray(rng.normal(size=shape), dtype)

    mask = rng.random((batch, time)) < 0.6
    mask[0] = False
    arguments = Arguments(
        draw(batch, time, features, dtype=dtype),
        jnp.asarray(mask),
        draw(2, batch, features, dtype=dtype),
        draw(2, features, 4 * hidden, dtype=dtype),
        draw(2, hidden, 4 * hidden, dtype=dtype),
        draw(2, 4 * hidden),
        draw(2, batch, hidden),
        draw(2, batch, hidden),
    )
    return arguments, (
        draw(batch, time, 2 * hidden, dtype=dtype),
        draw(2, batch, hidden),
        draw(2, batch, hidden),
    )


def _float32(x: Array) -> Array:
    return x if x.dtype == jnp.bool_ else x.astype(jnp.float32)
