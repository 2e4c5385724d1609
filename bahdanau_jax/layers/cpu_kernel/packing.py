"""Reorders weights for the products, and sums the gradients that parts computed separately."""

from bahdanau_jax.layers.cpu_kernel.build import f32, njit, types
from bahdanau_jax.layers.cpu_kernel.simd import (
    INT16_ONE,
    LANES,
    PANEL,
    ROW_BYTES,
    apart,
    loadf,
    peek8,
    poke16,
    storef,
)
from bahdanau_jax.layers.cpu_kernel.vectors import (
    add,
    copy,
    zero,
)


@njit
def pack(job):
    """Writes weights and bias in the order in which the forward products read them."""
    apart()
    F, H, HP, D = job.features, job.hidden, job.padded, job.directions
    to = job.packed
    for d in range(D):
        for j in range(0, HP, LANES):
            width = min(LANES, H - j)
            for k in range(F + H):
                row = job.w + 16 * H * (d * F + k) if k < F else job.u + 16 * H * (d * H + k - F)
                for g in range(4):
                    zero(to, LANES)
                    copy(to, row + 4 * (g * H + j), width)
                    to += 4 * LANES
    if job.bias:
        for d in range(D):
            for j in range(0, HP, LANES):
                for g in range(4):
                    to = job.packed_bias + 16 * (d * HP + j) + 4 * g * LANES
                    zero(to, LANES)
                    copy(to, job.bias + 4 * (d * 4 * H + g * H + j), min(LANES, H - j))


@njit
def weight(job, d, k, column):
    """Weight k of a column: that of input feature k, or of state k - features."""
    F, H = job.features, job.hidden
    if k < F:
        return loadf(job.w + 4 * ((d * F + k) * 4 * H + column))
    return loadf(job.u + 4 * ((d * H + k - F) * 4 * H + column))


@njit
def column_unit(job, d, column):
    """The weight for which 1 stands in a column: the smallest with which weights fit int16 and sums int32."""
    K = job.features + job.hidden
    largest, total = f32(0.0), f32(0.0)
    for k in range(K):
        size = abs(weight(job, d, k, column))
        largest, total = max(largest, size), total + size
    # Inputs and states are at most INT16_ONE, and rounding adds up to 1/2 to each of K weights.
    unit = max(largest / f32(32767), total / (f32(1 << 31) / INT16_ONE - f32(K)))
    return unit if unit > 0 else f32(1.0)


@njit
def pack_int16(job):
    """Writes the weights as int16, two of a column side by side, and the column's scales and bias."""
    apart()
    F, H, HP, D = job.features, job.hidden, job.padded, job.directions
    pairs = (F + 1) // 2 + (H + 1) // 2
    for d in range(D):
        for j in range(0, HP, LANES):
            panel = job.packed + (d * HP + j) // LANES * pairs * ROW_BYTES
            zero(panel, pairs * PANEL)
            zero(job.column_scales + 16 * (d * HP + j), PANEL)
            zero(job.packed_bias + 16 * (d * HP + j), PANEL)
            for g in range(4):
                for n in range(min(LANES, H - j)):
                    column = g * H + j + n
                    unit = column_unit(job, d, column)
                    place = 4 * (g * LANES + n)
                    storef(job.column_scales + 16 * (d * HP + j) + place, unit / INT16_ONE)
                    if job.bias:
                        bias = loadf(job.bias + 4 * (d * 4 * H + column))
                        storef(job.packed_bias + 16 * (d * HP + j) + place, bias)
                    for k in range(F + H):
                        half = k if k < F else k + F % 2
                        number = types.int16(round(weight(job, d, k, column) / unit))
                        poke16(panel + half // 2 * ROW_BYTES + place + 2 * (half % 2), number)


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
