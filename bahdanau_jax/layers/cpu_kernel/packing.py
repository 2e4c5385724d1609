"""Reorders weights for the products, and sums the gradients that parts computed separately."""

from bahdanau_jax.layers.cpu_kernel.bfloat16 import add_bfloat16, store_bfloat16_pairs, widen
from bahdanau_jax.layers.cpu_kernel.build import f32, free, i64, njit
from bahdanau_jax.layers.cpu_kernel.job import write
from bahdanau_jax.layers.cpu_kernel.simd import (
    INT16_ONE,
    LANES,
    PANEL,
    ROW_BYTES,
    apart,
    load,
    loadf,
    maximum,
    peek8,
    peek16,
    poke16,
    splat,
    store,
    store_pairs,
    storef,
)
from bahdanau_jax.layers.cpu_kernel.vectors import (
    add,
    allocate,
    copy,
    zero,
)


@njit
def columns(job, row, j, g, spare):
    """LANES columns of gate g from unit j on of the weights' row at an address; zeros behind the last."""
    at, width = row + job.itemsize * (g * job.hidden + j), job.hidden - j
    if job.bfloat16:
        widen(spare, at, min(width, LANES))
        at = spare
    elif width < LANES:
        zero(spare, LANES)
        copy(spare, at, width)
        at = spare
    return load(at)


@njit
def weight_row(job, d, k):
    """Address of the weights of input feature k, or of state k - features."""
    F, H = job.features, job.hidden
    row_bytes = 4 * job.itemsize * H
    return job.w + row_bytes * (d * F + k) if k < F else job.u + row_bytes * (d * H + k - F)


@njit
def pack_bias(job):
    """Writes the bias in the order of the packed weights' columns."""
    apart()
    H = job.hidden
    for d in range(job.directions):
        for j in range(0, job.padded, LANES):
            for g in range(4):
                to = job.packed_bias + 16 * (d * job.padded + j) + 4 * g * LANES
                zero(to, LANES)
                copy(to, job.bias + 4 * (4 * H * d + g * H + j), min(LANES, H - j))


@njit
def pack(job):
    """Writes weights and bias in the order in which the forward products read them."""
    apart()
    spare = allocate(4 * LANES)
    to = job.packed
    for d in range(job.directions):
        for j in range(0, job.padded, LANES):
            for k in range(job.features + job.hidden):
                for g in range(4):
                    store(to, columns(job, weight_row(job, d, k), j, g, spare))
                    to += 4 * LANES
    free(spare)
    pack_bias(job)


@njit
def column_units(job, d, j, g, spare):
    """The weights for which 1 stands: the smallest with which weights fit int16 and sums int32."""
    K = job.features + job.hidden
    zeros = splat(f32(0.0))
    largest, total = zeros, zeros
    for k in range(K):
        weights = columns(job, weight_row(job, d, k), j, g, spare)
        size = maximum(weights, zeros - weights)
        largest, total = maximum(largest, size), total + size
    # Inputs and states are at most INT16_ONE, and rounding adds up to 1/2 to each of K weights.
    unit = maximum(largest / splat(f32(32767)), total / splat(f32(1 << 31) / INT16_ONE - f32(K)))
    return maximum(unit, splat(f32(1e-30)))  # a column of zeros


@njit
def pack_pairs(job):
    """Writes the weights, two of a column side by side, and the bias. int16 also has scales of columns."""
    apart()
    F, K = job.features, job.features + job.hidden
    spare = allocate(4 * LANES)
    to = job.packed
    for d in range(job.directions):
        for j in range(0, job.padded, LANES):
            for g in range(4):
                unit = splat(f32(1.0))
                if job.int16:
                    unit = column_units(job, d, j, g, spare)
                    scales = job.column_scales + 16 * (d * job.padded + j) + 4 * g * LANES
                    store(scales, unit / splat(INT16_ONE))
                at, k = to + 4 * g * LANES, i64(0)
                while k < K:
                    first = columns(job, weight_row(job, d, k), j, g, spare) / unit
                    second = splat(f32(0.0))
                    if k != F - 1 and k != K - 1:  # pairs do not mix inputs and states
                        k += 1
                        second = columns(job, weight_row(job, d, k), j, g, spare) / unit
                    if job.int16:
                        store_pairs(at, first, second)
                    else:
                        store_bfloat16_pairs(at, first, second)
                    at, k = at + ROW_BYTES, k + 1
            to += ((F + 1) // 2 + (job.hidden + 1) // 2) * ROW_BYTES
    free(spare)
    pack_bias(job)


@njit
def pack_transposed(job):
    """Writes the transposed weights in the order in which the backward products read them."""
    apart()
    F, H, HP, D = job.features, job.hidden, job.padded, job.directions
    to = job.packed_t
    for d in range(D):
        for which in range(2):
            size = F if which == 0 else H
            source = weight_row(job, d, 0 if which == 0 else F)
            for p in range(0, size, PANEL):
                width = min(PANEL, size - p)
                for j in range(0, HP, LANES):
                    for g in range(4):
                        for k in range(j, j + LANES):
                            second = job.bfloat16 * (k % 2)  # of a pair
                            if not second:
                                zero(to, PANEL)
                            for column in range(width if k < H else 0):
                                at = source + job.itemsize * ((p + column) * 4 * H + g * H + k)
                                if job.bfloat16:
                                    poke16(to + 4 * column + 2 * second, peek16(at))
                                else:
                                    storef(to + 4 * column, loadf(at))
                            if second or not job.bfloat16:
                                to += ROW_BYTES


@njit
def sum_gradients(job):
    """Sums the groups' weight gradients in a fixed order and writes them in the caller's layout."""
    apart()
    F, H, HP, D = job.features, job.hidden, job.padded, job.directions
    size = (F + H + 1) * 16 * HP
    for group in range(1, job.groups):
        add(job.gradients, job.gradients + group * D * size, D * size // 4)
    at = job.gradients
    for d in range(D):
        for j in range(0, HP, LANES):
            width = min(LANES, H - j)
            for k in range(F + H + 1):
                if k < F:
                    row = job.d_w + 4 * job.itemsize * H * (d * F + k)
                else:
                    row = job.d_u + 4 * job.itemsize * H * (d * H + k - F)
                for g in range(4):
                    if k < F + H:
                        write(job, row + job.itemsize * (g * H + j), at, width)
                    else:
                        copy(job.d_bias + 4 * (4 * H * d + g * H + j), at, width)
                    at += 4 * LANES


@njit
def sum_inputs(job):
    """Adds the second direction's input gradient, if it was computed in its own buffer."""
    apart()
    F = job.features
    for n in range(job.batch * job.time):
        if peek8(job.mask + n):
            to, other = job.d_x + job.itemsize * F * n, job.d_x_second + job.itemsize * F * n
            if job.bfloat16:
                add_bfloat16(to, other, F)
            else:
                add(to, other, F)
