"""bfloat16 in the kernel: rounding, pairs of factors, and sums of their products in float32.

A bfloat16 is the upper half of a float32. A product multiplies pairs of factors, which lie side by side along
the dimension that it sums over.
"""

from llvmlite import ir
from numba import types

from bahdanau_jax.layers.cpu_kernel.build import cpu_features, i64, njit
from bahdanau_jax.layers.cpu_kernel.simd import (
    LANES,
    apart,
    emit_fma,
    emit_load,
    emit_splat,
    emit_store,
    emits,
    external,
    i16_ir,
    i32_ir,
    ivec_ir,
    load,
    peek,
    store,
    vec,
    vec_ir,
)

HAS_INSTRUCTION = LANES == 16 and "avx512bf16" in cpu_features()
_half_ir = ir.VectorType(i16_ir, int(LANES))
_POINTER, _MASK = ir.PointerType(i16_ir), ir.VectorType(ir.IntType(1), int(LANES))


def _each(value):
    return ir.Constant(ivec_ir, [value] * int(LANES))


def emit_dot(b, x, y, sums):
    """x[2i] * y[2i] + x[2i+1] * y[2i+1] + sums[i]. Each int32 of x and y holds two bfloat16.

    A product of two bfloat16 is exact in float32, and each addition rounds once. So a sum of n products is
    within n * 2**-24 * (the sum of their magnitudes) of the exact one, to first order, in whatever order a
    CPU adds. Intel's manual adds the odd product first, and so do the instructions that stand in for
    vdpbf16ps. Beside the order, they differ from it in denormals: it takes factors below 2**-126
    for 0 and flushes such sums, which changes a sum by at most 2**-126 * (1 + |factor|) for each product.
    """
    if HAS_INSTRUCTION:
        kinds = [vec_ir, ivec_ir, ivec_ir]  # LLVM converts them to its own type of bfloat16
        fn = external(b, "llvm.x86.avx512bf16.dpbf16ps.512", vec_ir, kinds)
        return b.call(fn, [sums, x, y])
    odd = [b.and_(v, _each(0xFFFF0000)) for v in (x, y)]
    even = [b.shl(v, _each(16)) for v in (x, y)]
    for factors in (odd, even):
        sums = emit_fma(b, *(b.bitcast(v, vec_ir) for v in factors), sums)
    return sums


def _rounded(b, value):
    """The nearest bfloat16, ties to even, in the upper half of each int32. NaN stays NaN."""
    bits = b.bitcast(value, ivec_ir)
    is_odd = b.and_(b.lshr(bits, _each(16)), _each(1))
    nearest = b.add(b.add(bits, _each(0x7FFF)), is_odd)
    is_nan = b.fcmp_unordered("uno", value, value)
    return b.select(is_nan, b.or_(bits, _each(1 << 22)), nearest)


def _narrowed(b, value):
    return b.trunc(b.lshr(_rounded(b, value), _each(16)), _half_ir)


def _widened(b, halves):
    return b.bitcast(b.shl(b.zext(halves, ivec_ir), _each(16)), vec_ir)


def _first(b, n):
    """The mask of the first n lanes."""
    lanes = ir.Constant(ivec_ir, list(range(int(LANES))))
    return b.icmp_signed("<", lanes, emit_splat(b, b.trunc(n, i32_ir)))


@emits(vec, i64)
def load_bfloat16(b, address):
    """Reads LANES bfloat16 as float32."""
    return _widened(b, emit_load(b, address, _half_ir, 2))


@emits(vec, i64, i64)
def load_first(b, address, n):
    """Reads the first n of LANES bfloat16 as float32, with zeros behind them."""
    kinds = [_POINTER, i32_ir, _MASK, _half_ir]
    fn = external(b, f"llvm.masked.load.v{LANES}i16.p0", _half_ir, kinds)
    zeros = ir.Constant(_half_ir, [0] * int(LANES))
    pointer = b.inttoptr(address, _POINTER)
    return _widened(b, b.call(fn, [pointer, ir.Constant(i32_ir, 2), _first(b, n), zeros]))


@emits(types.void, i64, vec)
def store_bfloat16(b, address, value):
    """Rounds LANES float32 and writes them."""
    emit_store(b, address, _narrowed(b, value), 2)


@emits(types.void, i64, vec, i64)
def store_first(b, address, value, n):
    """Rounds the first n of LANES float32 and writes them."""
    kinds = [_half_ir, _POINTER, i32_ir, _MASK]
    fn = external(b, f"llvm.masked.store.v{LANES}i16.p0", ir.VoidType(), kinds)
    pointer = b.inttoptr(address, _POINTER)
    b.call(fn, [_narrowed(b, value), pointer, ir.Constant(i32_ir, 2), _first(b, n)])


@emits(types.void, i64, vec, vec)
def store_bfloat16_pairs(b, address, first, second):
    """Rounds the numbers of both and writes them in turn."""
    even = b.lshr(_rounded(b, first), _each(16))
    odd = b.and_(_rounded(b, second), _each(0xFFFF0000))
    emit_store(b, address, b.or_(even, odd))


@njit
def widen(to, source, n):
    """Writes n bfloat16 as float32, and zeros behind them up to a whole vector."""
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store(to + 4 * k, load_bfloat16(source + 2 * k))
    if whole < n:
        store(to + 4 * whole, load_first(source + 2 * whole, n - whole))


@njit
def narrow(to, source, n):
    """Rounds n float32 to bfloat16. Reads whole vectors. `to` may be `source`."""
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store_bfloat16(to + 2 * k, load(source + 4 * k))
    if whole < n:
        store_first(to + 2 * whole, load(source + 4 * whole), n - whole)


@njit
def add_bfloat16(to, source, n):
    """Adds n bfloat16, as `vectors.add` adds float32."""
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store_bfloat16(to + 2 * k, load_bfloat16(to + 2 * k) + load_bfloat16(source + 2 * k))
    if whole < n:
        at, rest = to + 2 * whole, n - whole
        store_first(at, load_first(at, rest) + load_first(source + 2 * whole, rest), rest)


@njit
def pair_rows(to, stride, table, offset, m, n):
    """Writes rows 0 and 1, rows 2 and 3 and so on of m rows [n] float32 as a row of pairs each; m is even.

    The rows lie at the addresses in `table` plus `offset`. Those of pairs may take the places of the first.
    """
    apart()
    for i in range(m // 2):
        first, second = peek(table + 16 * i) + offset, peek(table + 16 * i + 8) + offset
        for k in range(0, n, LANES):
            store_bfloat16_pairs(to + i * stride + 4 * k, load(first + 4 * k), load(second + 4 * k))
