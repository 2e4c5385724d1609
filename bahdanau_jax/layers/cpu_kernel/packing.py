"""Reorders weights for the products, and sums the gradients that parts computed separately."""

from bahdanau_jax.layers.cpu_kernel.build import f32, free, i64, njit
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
    at, width = row + 4 * (g * job.hidden + j), job.hidden - j
    if width < LANES:
        zero(spare, LANES)
        copy(spare, at, width)
        at = spare
    return load(at)


@njit
def weight_row(job, d, k):
    """Address of the weights of input feature k, or of state k - features."""
    F, H = job.features, job.hidden
    return job.w + 16 * H * (d * F + k) if k < F else job.u + 16 * H * (d * H + k - F)


@njit
def pack_bias(job):
    """Writes the bias in the order of the packed weights' columns."""
    apart()
    spare = allocate(4 * LANES)
    for d in range(job.directions):
        for j in range(0, job.padded, LANES):
            for g in range(4):
                to = job.packed_bias + 16 * (d * job.padded + j) + 4 * g * LANES
                store(to, columns(job, job.bias + 16 * job.hidden * d, j, g, spare))
    free(spare)


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
def pack_int16(job):
    """Writes the weights as int16, two of a column side by side, and the columns' scales and bias."""
    apart()
    F, K = job.features, job.features + job.hidden
    spare = allocate(4 * LANES)
    to = job.packed
    for d in range(job.directions):
        for j in range(0, job.padded, LANES):
            for g in range(4):
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
                    store_pairs(at, first, second)
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
            source = job.w + 16 * H * d * F if which == 0 else job.u + 16 * H * d * H
            for p in range(0, size, PANEL):
                width = min(PANEL, size - p)
                for j in range(0, HP, LANES):
                    for g in range(4):
                        for k in range(j, j + LANES):
                            if k < H:
                                for column in range(width):
                                    storef(
                                        to + 4 * column,
                                        loadf(source + 4 * ((p + column) * 4 * H + g * H + k)),
                                    )
                                for column in range(width, PANEL):
                                    storef(to + 4 * column, f32(0.0))
                            else:
                                zero(to, PANEL)
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
                    row = job.d_w + 16 * H * (d * F + k)
                elif k < F + H:
                    row = job.d_u + 16 * H * (d * H + k - F)
                else:
                    row = job.d_bias + 16 * H * d
                for g in range(4):
                    copy(row + 4 * (g * H + j), at, width)
                    at += 4 * LANES


@njit
def sum_inputs(job):
    """Adds the second direction's input gradient, if it was computed in its own buffer."""
    apart()
    F = job.features
    for n in range(job.batch * job.time):
        if peek8(job.mask + n):
            add(job.d_x + 4 * F * n, job.d_x_second + 4 * F * n, F)
