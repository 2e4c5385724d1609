"""The four gates of a step before their nonlinearity, as sums of products in float32 or in int16.

Both functions work on n rows and on LANES hidden units from unit j on. `x_table` and `h_table` hold the
addresses of the rows' inputs and states. They write the sums to `acc`, [n, 4 gates, LANES] float32, and may
write to the row behind.
"""

from bahdanau_jax.layers.cpu_kernel.build import f32, i64, njit
from bahdanau_jax.layers.cpu_kernel.product import bahdanau_product, bahdanau_product_int16
from bahdanau_jax.layers.cpu_kernel.simd import (
    LANES,
    ROW_BYTES,
    apart,
    fma,
    load,
    load_int32,
    peek,
    splat,
    store,
)
from bahdanau_jax.layers.cpu_kernel.vectors import (
    copy,
    zero,
)


@njit
def gate_sums(job, d, j, n, x_table, h_table, acc):
    """Writes the sums of float32 products."""
    apart()
    F, H = job.features, job.hidden
    for i in range(n):
        for g in range(4):
            start = start_of_sum(job, d, j, g, peek(x_table + 8 * i), acc + n * ROW_BYTES)
            store(acc + i * ROW_BYTES + 4 * g * LANES, start)
    weights = job.packed + (d * job.padded + j) // LANES * (F + H) * ROW_BYTES
    bahdanau_product(n, acc, ROW_BYTES, x_table, weights, ROW_BYTES, F)
    bahdanau_product(n, acc, ROW_BYTES, h_table, weights + F * ROW_BYTES, ROW_BYTES, H)


@njit
def gate_sums_int16(job, d, j, n, x_table, h_table, acc):
    """Writes the sums of int16 products, summed in int32 and multiplied by their columns' scales."""
    apart()
    F, H = (job.features + 1) // 2, (job.hidden + 1) // 2  # pairs
    for i in range(n):
        for g in range(4):
            store(acc + i * ROW_BYTES + 4 * g * LANES, splat(f32(0.0)))
    weights = job.packed + (d * job.padded + j) // LANES * (F + H) * ROW_BYTES
    bahdanau_product_int16(n, acc, ROW_BYTES, x_table, weights, ROW_BYTES, F)
    bahdanau_product_int16(n, acc, ROW_BYTES, h_table, weights + F * ROW_BYTES, ROW_BYTES, H)
    scales = job.column_scales + 16 * (d * job.padded + j)
    for i in range(n):
        for g in range(4):
            at = acc + i * ROW_BYTES + 4 * g * LANES
            start = start_of_sum(job, d, j, g, peek(x_table + 8 * i), acc + n * ROW_BYTES)
            store(at, fma(load_int32(at), load(scales + 4 * g * LANES), start))


@njit
def start_of_sum(job, d, j, g, row, spare):
    """What gate g has without products: the bias and, where inputs are ids, the kernel's row at `row`."""
    bias = load(job.packed_bias + 16 * (d * job.padded + j) + 4 * g * LANES)
    if not job.lookup:
        return bias
    at, width = row + 4 * (g * job.hidden + j), job.hidden - j
    if width < LANES:  # a vector would reach beyond the row
        zero(spare, i64(LANES))
        copy(spare, at, width)
        at = spare
    return bias + load(at)
