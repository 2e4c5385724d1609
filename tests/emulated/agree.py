"""Compares the CPU kernel with the scan on this CPU, and prints what it saw. Exits 1 where they differ.

`arm64.sh` runs it on an emulated arm64 CPU. On an x86-64 CPU without FMA:

    qemu-x86_64 -cpu max,fma=off,avx2=off .venv/bin/python -m tests.emulated.agree
"""

import platform
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from llvmlite import binding

from bahdanau_jax.layers import bilstm, cpu_kernel


def results_and_gradients(implementation, arrays, mask):
    """Outputs, h and c of a BiLSTM, and the gradients of a function of all three."""

    def loss(arrays):
        state = arrays["h"], arrays["c"]
        weights = arrays["kernel"], arrays["recurrent_kernel"], arrays["bias"]
        outputs, (h, c) = bilstm(
            arrays["x"], *weights, mask=mask, initial_state=state, implementation=implementation
        )
        total = jnp.sum(outputs**2) + jnp.sum(jnp.sin(h)) + jnp.sum(c**2)
        return total, (outputs, h, c)

    gradients, results = jax.jit(jax.grad(loss, has_aux=True))(arrays)
    return jax.tree.leaves((results, gradients))


def main() -> int:
    rng = np.random.default_rng(0)
    batch, steps, features, hidden = 13, 9, 7, 21
    shapes = dict(
        x=(batch, steps, features), kernel=(2, features, 4 * hidden),
        recurrent_kernel=(2, hidden, 4 * hidden), bias=(2, 4 * hidden),
        h=(2, batch, hidden), c=(2, batch, hidden),
    )  # fmt: skip
    arrays = {name: 0.5 * rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    mask = rng.random((batch, steps)) < 0.6
    mask[0] = False
    print(f"{platform.machine()}, LLVM's name of the CPU: {binding.get_host_cpu_name()}")
    start = time.perf_counter()
    if (obstacle := cpu_kernel.obstacle()) is not None:
        print(f"the kernel cannot run: {obstacle}")
        return 1
    from bahdanau_jax.layers.cpu_kernel import simd

    print(f"compiled in {time.perf_counter() - start:.0f} s", end="; ")
    print(f"{simd.LANES} lanes, {simd.TILE_ROWS} rows in a tile")
    print(f"'auto' declines the kernel because: {cpu_kernel.declined()}")
    found, expected = (results_and_gradients(name, arrays, mask) for name in ("native", "scan"))
    worst = max(
        float(np.max(np.abs(a - b)) / max(1, np.max(np.abs(b))))
        for a, b in zip(found, expected, strict=True)
    )
    print(f"largest difference from the scan, relative to an array's largest value: {worst:.1e}")
    return 0 if worst < 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
