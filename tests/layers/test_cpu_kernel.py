"""The CPU kernel: registers and memory pages of CPUs other than this machine's, and large sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bahdanau_jax import bilstm
from bahdanau_jax.layers import cpu_kernel
from bahdanau_jax.layers.cpu_kernel import ffi, simd


@pytest.mark.parametrize("machine, registers", [("arm64", 32), ("aarch64", 32), ("x86_64", 16)])
def test_a_tile_fits_the_registers_although_llvm_names_no_features(machine, registers):
    lanes, rows = simd.tile_shape(frozenset(), machine)
    assert lanes == 4  # NEON and SSE: 128 bits
    assert registers / 2 < 4 * rows < registers


@pytest.mark.parametrize("page", [4096, 16384, 65536])
@pytest.mark.parametrize("address", [65536, 65536 + 64, 3 * 65536 - 64])
def test_huge_pages_are_asked_for_whole_pages_inside_the_buffer(monkeypatch, page, address):
    calls = []
    monkeypatch.setattr(ffi, "LINUX", True)
    monkeypatch.setattr(ffi, "getpagesize", lambda: page)
    monkeypatch.setattr(ffi, "madvise", lambda *call: calls.append(call))
    size = (4 << 20) + 192
    ffi.huge_pages.py_func(address, size)
    [(start, length, _)] = calls
    assert start % page == length % page == 0
    assert address <= start < address + page
    assert address + size - page < start + length <= address + size


@pytest.mark.skipif(cpu_kernel.obstacle() is not None, reason="the CPU kernel does not run here")
@pytest.mark.parametrize(
    "batch, time, features, hidden",
    [(64, 100, 4, 64), (7, 6, 70, 263)],
    ids=["records-larger-than-L3", "weights-larger-than-L2"],
)
@pytest.mark.slow
def test_large_sizes_give_the_same_gradients(batch, time, features, hidden):
    """Large records are stored past the caches. All threads pack large weights, and sum their gradients."""
    record_bytes, weight_bytes = 24 * hidden, 16 * hidden * (features + hidden)
    assert batch * time * 2 * record_bytes > ffi.L3_BYTES or weight_bytes > ffi.L2_BYTES
    random = np.random.default_rng(0)
    shapes = (batch, time, features), (2, features, 4 * hidden), (2, hidden, 4 * hidden)
    x, kernel, recurrent_kernel = (
        random.normal(size=shape).astype(np.float32) / np.sqrt(shape[1]) for shape in shapes
    )
    bias = np.zeros((2, 4 * hidden), np.float32)
    mask = random.random((batch, time)) < 0.9

    def gradients(implementation):
        def loss(*arguments):
            outputs, _ = bilstm(*arguments, mask=mask, implementation=implementation)
            return jnp.sum(outputs**2)

        return jax.jit(jax.grad(loss, (0, 1, 2, 3)))(x, kernel, recurrent_kernel, bias)

    for ours, scans in zip(gradients("native"), gradients("scan"), strict=True):
        error = np.linalg.norm(ours - scans) / np.linalg.norm(scans)
        assert error < 1e-5
