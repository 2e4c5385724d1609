"""The CPU kernel on CPUs other than this machine's: registers and memory pages."""

import pytest

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
