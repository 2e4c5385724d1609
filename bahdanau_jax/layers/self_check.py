"""Compares an implementation with the scan on a small masked input, on the GPU at hand."""

import threading
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from bahdanau_jax.layers import scan
from bahdanau_jax.layers.layer import Arguments, Layer

TOLERANCE = 1e-4  # relative; TF32 would differ by 1e-3


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
    """Compares results and gradients in float32.

    Args:
      module: has `run_saving`, `gradients` and `record_size`; see implementations.py.
      name: what messages call it.
    """
    rng = np.random.default_rng(0)
    batch, time, features, hidden = 4, 7, 5, 3

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    mask = rng.random((batch, time)) < 0.6
    mask[0] = False
    layer = Layer(reverse=False, dtype=np.dtype(np.float32))
    arguments = Arguments(
        draw(batch, time, features),
        jnp.asarray(mask),
        draw(2, batch, features),
        draw(2, features, 4 * hidden),
        draw(2, hidden, 4 * hidden),
        draw(2, 4 * hidden),
        draw(2, batch, hidden),
        draw(2, batch, hidden),
    )
    of_results = draw(batch, time, 2 * hidden), draw(2, batch, hidden), draw(2, batch, hidden)
    try:

        def by_module(arguments, of_results):
            size = module.record_size(layer, arguments)
            results, records = module.run_saving(layer, arguments, size)
            return *results, *module.gradients(layer, arguments, records, of_results)

        def by_scan(arguments, of_results):
            results, records = scan.run_saving(layer, arguments)
            return *results, *scan.gradients(layer, arguments, records, of_results)

        with jax.default_matmul_precision("highest"):  # else the scan's products are TF32 on a GPU
            got, want = (
                jax.device_get(jax.jit(f)(arguments, of_results)) for f in (by_module, by_scan)
            )
    except Exception as error:  # whatever the plugin, XLA or the driver raises
        return f"{name} failed on a small input ({' '.join(str(error).split())[:150]})"
    worst = max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, want, strict=True)
    )
    # Written so that a NaN fails.
    return None if worst < TOLERANCE else f"{name} differs from the scan by {worst:.1e}"
