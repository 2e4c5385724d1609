"""Functions of numba code on vector registers, and on arrays of float32 in memory."""

from numba import types

from bahdanau_jax.layers.cpu_kernel.build import aligned_alloc, f32, i64, njit
from bahdanau_jax.layers.cpu_kernel.simd import (
    INT16_ONE,
    LANES,
    apart,
    clip,
    fma,
    load,
    loadf,
    poke16,
    prefetch,
    prefetch_to_write,
    splat,
    store,
    store_int16,
    storef,
    times_power_of_two,
)


@njit
def tanh(x):
    """Rational approximation, as in Eigen and XLA; exactly +-1 when saturated."""
    x = clip(x, f32(9.1))
    s = x * x
    p = fma(s, splat(f32(1.394553628e-8)), splat(f32(2.102733560e-5)))
    p = fma(s, p, splat(f32(3.520756727e-3)))
    p = fma(s, p, splat(f32(1.340216100e-1)))
    p = fma(s, p, splat(f32(1.0)))
    q = fma(s, splat(f32(8.015776984e-7)), splat(f32(3.326951409e-4)))
    q = fma(s, q, splat(f32(2.597254514e-2)))
    q = fma(s, q, splat(f32(4.673548340e-1)))
    q = fma(s, q, splat(f32(1.0)))
    return clip(x * p / q, f32(1.0))


@njit
def sigmoid(x):
    half = splat(f32(0.5))
    return fma(tanh(x * half), half, half)


@njit
def exp(x, factor, limit):
    """e**(factor * x) to 2e-7 of itself, clipped to [2**-limit, 2**limit]; limit at most 126.

    A polynomial for the fraction of the exponent of 2, as in Cephes.
    """
    factor = f32(factor * 1.4426950408889634)
    x = clip(x, f32(limit / abs(factor)))
    shift, factor = splat(f32(1.5 * 2**23)), splat(factor)
    shifted = fma(x, factor, shift)  # rounds the exponent to a whole number
    fraction = fma(x, factor, shift - shifted)
    p = fma(fraction, splat(f32(1.326472615e-3)), splat(f32(9.671512991e-3)))
    p = fma(fraction, p, splat(f32(5.550733581e-2)))
    p = fma(fraction, p, splat(f32(2.402224243e-1)))
    p = fma(fraction, p, splat(f32(6.931470037e-1)))
    return times_power_of_two(fma(fraction, p, splat(f32(1.0))), shifted)


@njit
def allocate(size):
    return aligned_alloc(i64(64), (size + 127) // 64 * 64)


@njit
def copy(to, source, n):
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store(to + 4 * k, load(source + 4 * k))
    for k in range(whole, n):
        storef(to + 4 * k, loadf(source + 4 * k))


@njit
def add(to, source, n):
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store(to + 4 * k, load(to + 4 * k) + load(source + 4 * k))
    for k in range(whole, n):
        storef(to + 4 * k, loadf(to + 4 * k) + loadf(source + 4 * k))


@njit
def add_rows(to, source, stride, rows):
    """Adds rows of four vectors to the one at `to`."""
    apart()
    first, second = load(to), load(to + 4 * LANES)
    third, fourth = load(to + 8 * LANES), load(to + 12 * LANES)
    for r in range(rows):
        at = source + r * stride
        first, second = first + load(at), second + load(at + 4 * LANES)
        third, fourth = third + load(at + 8 * LANES), fourth + load(at + 12 * LANES)
    store(to, first)
    store(to + 4 * LANES, second)
    store(to + 8 * LANES, third)
    store(to + 12 * LANES, fourth)


@njit
def multiply(to, source, factor, n):
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store(to + 4 * k, load(source + 4 * k) * load(factor + 4 * k))
    for k in range(whole, n):
        storef(to + 4 * k, loadf(source + 4 * k) * loadf(factor + 4 * k))


@njit
def zero(to, n):
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store(to + 4 * k, splat(f32(0.0)))
    for k in range(whole, n):
        storef(to + 4 * k, f32(0.0))


@njit
def to_int16(to, source, n):
    """Rounds n float32 in [-1, 1] to int16 in units of 1 / INT16_ONE."""
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store_int16(to + 2 * k, load(source + 4 * k) * splat(INT16_ONE))
    for k in range(whole, n):
        poke16(to + 2 * k, types.int16(round(loadf(source + 4 * k) * INT16_ONE)))


@njit
def send_for(address, size):
    """Prefetches `size` bytes. The rows of a step lie far apart, so the CPU does not guess the next one."""
    for k in range(0, size, 64):
        prefetch(address + k)


@njit
def send_to_write(address, size):
    """As `send_for`, for bytes that will be written."""
    for k in range(0, size, 64):
        prefetch_to_write(address + k)
