"""Reorders weights for the products, and sums the gradients that parts computed separately."""

from bahdanau_jax.layers.cpu_kernel.bfloat16 import add_bfloat16, store_bfloat16_pairs, widen
from bahdanau_jax.layers.cpu_kernel.build import f32, free, i64, library_function, njit
from bahdanau_jax.layers.cpu_kernel.job import job_at, panel_rows, panels_of, write
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
def blocks_of(job):
    """The number of blocks of weights in a direction: each has the four gates of LANES units."""
    return job.padded // LANES


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
def pack(job, block, spare):
    """Writes a block of weights in the order in which the forward products read them."""
    K = job.features + job.hidden
    d, j = block // blocks_of(job), block % blocks_of(job) * LANES
    to = job.packed + block * K * ROW_BYTES
    for k in range(K):
        for g in range(4):
            store(to, columns(job, weight_row(job, d, k), j, g, spare))
            to += 4 * LANES


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
def pack_pairs(job, block, spare):
    """Writes a block of weights, two of a column side by side. int16 also has scales of columns."""
    F, K = job.features, job.features + job.hidden
    d, j = block // blocks_of(job), block % blocks_of(job) * LANES
    to = job.packed + block * ((F + 1) // 2 + (job.hidden + 1) // 2) * ROW_BYTES
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


@library_function(2)
def bahdanau_pack_part(address, part):
    """Packs a block of weights: the four gates of LANES units in a direction."""
    job = job_at(address)
    spare = allocate(4 * LANES)
    if job.int16 or job.bfloat16:
        pack_pairs(job, part, spare)
    else:
        pack(job, part, spare)
    free(spare)
    return 0


@library_function(2)
def bahdanau_pack_transposed_part(address, part):
    """Writes a panel of transposed weights in the order in which the backward products read them."""
    job = job_at(address)
    F, H, HP = job.features, job.hidden, job.padded
    panels = panels_of(F) + panels_of(H)  # of inputs, then of states
    d, first, end = part // panels, part % panels * PANEL, F
    if first >= F:
        first, end = first + F - panels_of(F) * PANEL, F + H
    source, width = weight_row(job, d, first), min(PANEL, end - first)
    to, rows = job.packed_t + part * panel_rows(job, 4 * HP) * ROW_BYTES, panel_rows(job, LANES)
    for j in range(0, HP, LANES):
        for g in range(4):
            zero(to, rows * PANEL)
            # All that a cache line holds of a column is read at once.
            for column in range(width):
                at = source + job.itemsize * (column * 4 * H + g * H + j)
                for k in range(min(LANES, H - j)):
                    if job.bfloat16:
                        row = to + k // 2 * ROW_BYTES + 2 * (k % 2)
                        poke16(row + 4 * column, peek16(at + 2 * k))
                    else:
                        storef(to + k * ROW_BYTES + 4 * column, loadf(at + 4 * k))
            to += rows * ROW_BYTES
    return 0


@njit
def sum_inputs(job, b):
    """Adds the second direction's input gradient of a text."""
    apart()
    row_bytes = job.itemsize * job.features
    for n in range(b * job.time, (b + 1) * job.time):
        if peek8(job.mask + n):
            to, other = job.d_x + row_bytes * n, job.d_x_second + row_bytes * n
            if job.bfloat16:
                add_bfloat16(to, other, job.features)
            else:
                add(to, other, job.features)


@library_function(2)
def bahdanau_sum_part(address, part):
    """Sums the groups' gradients of a block of weights in a fixed order, in the caller's layout.

    A part behind the last block is a text: its input gradients of both directions are added, if they were
    computed apart.
    """
    job = job_at(address)
    F, H, D, blocks = job.features, job.hidden, job.directions, blocks_of(job)
    if part >= D * blocks:
        sum_inputs(job, part - D * blocks)
        return 0
    d, j = part // blocks, part % blocks * LANES
    size = (F + H + 1) * ROW_BYTES
    at = job.gradients + part * size
    for group in range(1, job.groups):
        add(at, at + group * D * blocks * size, size // 4)
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
    return 0
