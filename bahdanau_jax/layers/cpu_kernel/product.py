"""The kernel's matrix product, blocked for vector registers.

Weights lie in panels of PANEL columns, so one tile of the product has the four gates of LANES hidden units
side by side: everything the cell needs.
"""

from typing import Any

from llvmlite import ir
from numba import types

from bahdanau_jax.layers.cpu_kernel.bfloat16 import emit_dot
from bahdanau_jax.layers.cpu_kernel.build import i64, library_function, njit
from bahdanau_jax.layers.cpu_kernel.simd import (
    LANES,
    ROW_BYTES,
    TILE_ROWS,
    VECTORS,
    apart,
    byte_offset,
    emit_fma,
    emit_load,
    emit_madd,
    emit_splat,
    emit_store,
    emits,
    f32_ir,
    i32_ir,
    i64_ir,
    ivec_ir,
    keep_rolled,
    vec_ir,
)
from bahdanau_jax.layers.cpu_kernel.vectors import send_for

# A product of int16 needs a register beside its sum. Where there are 16, a third row would not fit.
INT16_ROWS = TILE_ROWS if TILE_ROWS > 3 else 2
# What a tile multiplies: the multiply-add, and the types of a factor (or pair of factors) and of the sums.
FLOAT32, INT16, BFLOAT16 = (
    (emit_fma, f32_ir, vec_ir),
    (emit_madd, i32_ir, ivec_ir),
    (emit_dot, i32_ir, vec_ir),
)
# Rows of a weight panel that stay in the L1 cache, of 32 KB or more, while the tiles pass over them.
DEPTH = (1 << 14) // ROW_BYTES


def _tile(rows, transposed=False, factors=FLOAT32, started=False):
    """Emits acc[r, :] += sum over k of a[r, k] * b[k, :] for `rows` rows and PANEL columns, in registers.

    acc and b are addresses with byte strides. `table` holds the addresses of a's rows, and `offset` is a
    byte offset into each. a[r, k] is float k of row r or, if transposed, float r of row k. With factors of
    16 bits, each float of a and b is a pair of them instead, whose products are added; for INT16, acc holds
    int32. If started, acc is only written: vector v of row r starts at row r of `starts` plus
    start_offset + v * start_stride.
    """
    multiply_add, number, vector = factors

    @emits(types.void, *[i64] * (10 if started else 7))
    def tile(b, acc, acc_stride, table, offset, b0, b_stride, k, *start):
        zero = ir.Constant(i64_ir, 0)
        at = [(r, v) for r in range(rows) for v in range(VECTORS)]
        cells = [
            b.add(byte_offset(b, acc, acc_stride, r), ir.Constant(i64_ir, int(4 * LANES * v)))
            for r, v in at
        ]
        if started:
            rows_of_start = [
                b.add(
                    emit_load(b, byte_offset(b, start[0], ir.Constant(i64_ir, r), 8), i64_ir, 8),
                    start[1],
                )
                for r in range(rows)
            ]
            starts = [
                emit_load(
                    b, b.add(rows_of_start[r], b.mul(start[2], ir.Constant(i64_ir, v))), vector
                )
                for r, v in at
            ]
        else:
            starts = [emit_load(b, c, vector) for c in cells]
        if not transposed:
            row = [b.add(table, ir.Constant(i64_ir, 8 * r)) for r in range(rows)]
            a_rows = [b.add(emit_load(b, address, i64_ir, 8), offset) for address in row]
        entry = b.block
        loop = b.append_basic_block("tile")
        done = b.append_basic_block("tile_done")
        b.cbranch(b.icmp_signed(">", k, zero), loop, done)

        b.position_at_end(loop)
        index = b.phi(i64_ir)
        sums = [b.phi(vector) for _ in cells]
        b_row = b.add(b0, b.mul(index, b_stride))
        if transposed:
            a_row = b.add(emit_load(b, byte_offset(b, table, index, 8), i64_ir, 8), offset)

        def broadcast(r):
            if transposed:
                at = b.add(a_row, ir.Constant(i64_ir, 4 * r))
            else:
                at = byte_offset(b, a_rows[r], index, 4)
            return emit_splat(b, emit_load(b, at, number))

        def column(v):
            at = b.add(b_row, ir.Constant(i64_ir, int(4 * LANES * v)))
            return emit_load(b, at, ir.VectorType(number, int(LANES)))

        # This order decides what LLVM keeps in registers. AVX-512 has 32, of which the sums leave 8: enough
        # for all columns and one broadcast. AVX2 has 16 and leaves 4: the broadcasts and one column.
        new: list[Any] = [None] * len(cells)
        if LANES == 16:
            columns = [column(v) for v in range(VECTORS)]
            for r in range(rows):
                a = broadcast(r)
                for v in range(VECTORS):
                    new[r * VECTORS + v] = multiply_add(b, a, columns[v], sums[r * VECTORS + v])
        else:
            broadcasts = [broadcast(r) for r in range(rows)]
            for v in range(VECTORS):
                w = column(v)
                for r in range(rows):
                    new[r * VECTORS + v] = multiply_add(b, broadcasts[r], w, sums[r * VECTORS + v])
        following = b.add(index, ir.Constant(i64_ir, 1))
        again = b.cbranch(b.icmp_signed("<", following, k), loop, done)
        if factors is INT16:
            keep_rolled(b.module, again)
        index.add_incoming(zero, entry)
        index.add_incoming(following, loop)
        for phi, start, value in zip(sums, starts, new, strict=True):
            phi.add_incoming(start, entry)
            phi.add_incoming(value, loop)

        b.position_at_end(done)
        results = [b.phi(vector) for _ in cells]
        for cell, start, value, result in zip(cells, starts, new, results, strict=True):
            result.add_incoming(start, entry)
            result.add_incoming(value, loop)
            emit_store(b, cell, result)

    return tile


def any_tile(most=TILE_ROWS, **kind):
    """Makes a numba function that runs the tile for `rows` rows, 1 <= rows <= most."""
    names = {f"tile{r}": _tile(r, **kind) for r in range(1, most + 1)}
    operands = "acc, acc_stride, table, offset, b, b_stride, k"
    if kind.get("started"):
        operands += ", starts, start_offset, start_stride"
    body = "".join(
        f"  if rows == {r}:\n    tile{r}({operands})\n    return\n" for r in range(most, 0, -1)
    )
    exec(f"def tile(rows, {operands}):\n{body}", names)
    return njit(names["tile"])


started_tile, tile_int16 = any_tile(started=True), any_tile(INT16_ROWS, factors=INT16)


def _by_tiles(tile, most=TILE_ROWS, ahead=False):
    """Makes a product of one kind of tile, with up to `most` rows each.

    With `ahead`, the tiles share out the prefetches of the next DEPTH rows of b.
    """

    @njit
    def product(rows, acc, acc_stride, table, b, b_stride, depth):
        count = (rows + most - 1) // most
        lines = (DEPTH * b_stride // 64 + count - 1) // count
        for k in range(0, depth, DEPTH):
            r, following = 0, b + (k + DEPTH) * b_stride
            for tiles in range(count, 0, -1):
                n, at = (rows - r + tiles - 1) // tiles, acc + r * acc_stride
                rest = min(DEPTH, depth - k)
                if ahead:
                    send_for(following, 64 * lines)
                    following += 64 * lines
                tile(n, at, acc_stride, table + 8 * r, 4 * k, b + k * b_stride, b_stride, rest)
                r += n

    return product


def _by_transposed_tiles(tile):
    @njit
    def product(rows, acc, acc_stride, table, b, b_stride, depth):
        r = 0
        for tiles in range((rows + TILE_ROWS - 1) // TILE_ROWS, 0, -1):
            n = (rows - r + tiles - 1) // tiles
            tile(n, acc + r * acc_stride, acc_stride, table, 4 * r, b, b_stride, depth)
            r += n

    return product


_product, _product_ahead, _product_int16, _product_bfloat16 = (
    _by_tiles(any_tile()),
    _by_tiles(any_tile(), ahead=True),
    _by_tiles(tile_int16, INT16_ROWS),
    _by_tiles(any_tile(factors=BFLOAT16)),
)
_product_transposed, _product_transposed_bfloat16 = (
    _by_transposed_tiles(any_tile(transposed=True)),
    _by_transposed_tiles(any_tile(transposed=True, factors=BFLOAT16)),
)


@library_function(8)
def bahdanau_product(rows, acc, acc_stride, table, b, b_stride, depth, ahead):
    """acc[r, :PANEL] += a[r, :depth] @ b[:depth, :PANEL]; `table` holds the addresses of a's rows.

    `ahead` is 1 if the weights, of which b is a panel, do not fit into the L2 cache; see `Job.large`.
    """
    apart()
    if ahead and rows > 4 * TILE_ROWS:  # among fewer tiles the prefetches would be in the way
        _product_ahead(rows, acc, acc_stride, table, b, b_stride, depth)
    else:
        _product(rows, acc, acc_stride, table, b, b_stride, depth)
    return 0


@library_function(7)
def bahdanau_product_int16(rows, acc, acc_stride, table, b, b_stride, depth):
    """As `bahdanau_product` for `depth` pairs of int16. acc holds int32."""
    apart()
    _product_int16(rows, acc, acc_stride, table, b, b_stride, depth)
    return 0


@library_function(7)
def bahdanau_product_bfloat16(rows, acc, acc_stride, table, b, b_stride, depth):
    """As `bahdanau_product` for `depth` pairs of bfloat16."""
    apart()
    _product_bfloat16(rows, acc, acc_stride, table, b, b_stride, depth)
    return 0


@library_function(7)
def bahdanau_product_transposed(rows, acc, acc_stride, table, b, b_stride, depth):
    """acc[r, :PANEL] += sum over k of a[k, r] * b[k, :PANEL]; `table` holds the addresses of a's rows."""
    apart()
    _product_transposed(rows, acc, acc_stride, table, b, b_stride, depth)
    return 0


@library_function(7)
def bahdanau_product_transposed_bfloat16(rows, acc, acc_stride, table, b, b_stride, depth):
    """As `bahdanau_product_transposed`; rows 2k and 2k + 1 of a and of b are `depth` rows of pairs."""
    apart()
    _product_transposed_bfloat16(rows, acc, acc_stride, table, b, b_stride, depth)
    return 0


@njit
def product(job, rows, acc, table, b, depth):
    """`bahdanau_product` of the job's factors; `depth` counts floats, or pairs of bfloat16."""
    if job.bfloat16:
        bahdanau_product_bfloat16(rows, acc, ROW_BYTES, table, b, ROW_BYTES, depth)
    else:
        bahdanau_product(rows, acc, ROW_BYTES, table, b, ROW_BYTES, depth, job.large)


@njit
def product_transposed(job, rows, acc, table, b, b_stride, depth):
    """`bahdanau_product_transposed` of the job's factors, in the same way."""
    if job.bfloat16:
        bahdanau_product_transposed_bfloat16(rows, acc, ROW_BYTES, table, b, b_stride, depth)
    else:
        bahdanau_product_transposed(rows, acc, ROW_BYTES, table, b, b_stride, depth)
