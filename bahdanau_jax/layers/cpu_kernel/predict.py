"""The forward pass of a prediction: as forward.py, without records and dropout, and with fewer copies.

Inputs may be ids, whose products with the kernel are looked up, and products may be of int16. A row has two
states: a step reads one and writes the other.
"""

from bahdanau_jax.layers.cpu_kernel.build import f32, free, i64, library_function, njit
from bahdanau_jax.layers.cpu_kernel.job import active_rows, directions_of, job_at
from bahdanau_jax.layers.cpu_kernel.product import (
    DEPTH,
    INT16_ROWS,
    bahdanau_product,
    bahdanau_product_int16,
    started_tile,
    tile_int16,
)
from bahdanau_jax.layers.cpu_kernel.simd import (
    LANES,
    ROW_BYTES,
    TILE_ROWS,
    apart,
    fma,
    load,
    load_int32,
    peek,
    peek8,
    peek32,
    poke,
    splat,
    store,
)
from bahdanau_jax.layers.cpu_kernel.vectors import (
    allocate,
    copy,
    exp,
    send_for,
    send_to_write,
    to_int16,
    zero,
)

GATE = 4 * LANES  # bytes of a gate in the sums


@njit
def input_row(job, d, batch_row, t):
    """Address of the input of a step: of x, or of the kernel's row that the id selects."""
    if job.lookup:
        number = i64(peek32(job.x + 4 * (batch_row * job.time + t)))
        return job.w + 16 * job.hidden * (d * job.vocabulary + number)
    return job.x + 4 * job.features * (batch_row * job.time + t)


@njit
def cells(n, acc, c_table, h_table, j):
    """Computes cells and states of n rows from unit j on. The tables hold the addresses of the rows.

    sigmoid(x) = 1 / (1 + e**-x), and tanh(x) = (1 - e**-2x) / (1 + e**-2x). The exponents are clipped, so that
    the common denominator of c * sigmoid(f) + sigmoid(i) * tanh(g) is finite. There are two loops because a
    CPU can begin a row before the one before is done only if a row has few instructions.
    """
    apart()
    one, limit = splat(f32(1.0)), 36.0
    for r in range(n):
        gates, at = acc + r * ROW_BYTES, peek(c_table + 8 * r) + 4 * j
        i = one + exp(load(gates), -1.0, limit)
        f = one + exp(load(gates + GATE), -1.0, limit)
        g = exp(load(gates + 2 * GATE), -2.0, limit)
        store(gates, one + exp(load(gates + 3 * GATE), -1.0, limit))
        i_g = i * (one + g)
        store(at, fma(load(at), i_g, (one - g) * f) / (i_g * f))
    for r in range(n):
        o, c = load(acc + r * ROW_BYTES), load(peek(c_table + 8 * r) + 4 * j)
        e = exp(c, -2.0, limit)
        store(peek(h_table + 8 * r) + 4 * j, (one - e) / (o * (one + e)))


@njit
def start_sums(job, d, j, n, x_table, acc, as_int32):
    """Writes what sums of gates begin with: 0 of int32; or the bias and, of an id, the kernel's row."""
    apart()
    for i in range(n):
        for g in range(4):
            start = splat(f32(0.0))
            if not as_int32:
                start = start_of_sum(job, d, j, g, peek(x_table + 8 * i))
            store(acc + i * ROW_BYTES + g * GATE, start)


@njit
def start_of_sum(job, d, j, g, row):
    """The bias of gate g and, where inputs are ids, the kernel's row at `row`."""
    start = load(job.packed_bias + 16 * (d * job.padded + j) + g * GATE)
    if job.lookup:
        start = start + load(row + 4 * (g * job.hidden + j))
    return start


@njit
def float32_units(job, d, j, n, x_table, h_table, c_table, new_table, acc, acc_table):
    """Computes LANES units of n rows from unit j on."""
    apart()
    F, H = job.features, job.hidden
    weights = job.packed + (d * job.padded + j) // LANES * (F + H) * ROW_BYTES
    starts, offset, stride, k = x_table, 4 * j, 4 * H, i64(0)
    if not job.lookup or H > DEPTH:
        start_sums(job, d, j, n, x_table, acc, False)
        bahdanau_product(n, acc, ROW_BYTES, x_table, weights, ROW_BYTES, F, job.large)
        k = (H - 1) // DEPTH * DEPTH
        bahdanau_product(
            n, acc, ROW_BYTES, h_table, weights + F * ROW_BYTES, ROW_BYTES, k, job.large
        )
        starts, offset, stride = acc_table, i64(0), GATE
    weights += (F + k) * ROW_BYTES
    r = 0
    for tiles in range((n + TILE_ROWS - 1) // TILE_ROWS, 0, -1):
        rows = (n - r + tiles - 1) // tiles
        at = acc + r * ROW_BYTES
        started_tile(
            rows, at, ROW_BYTES, h_table + 8 * r, 4 * k, weights, ROW_BYTES, H - k,
            starts + 8 * r, offset, stride,
        )  # fmt: skip
        r += rows
    cells(n, acc, c_table, new_table, j)


@njit
def int16_units(job, d, j, n, x_table, h_table, c_table, new_table, acc):
    """As `float32_units`, from products of int16, summed in int32 and multiplied by their columns' scales."""
    apart()
    F, H = (job.features + 1) // 2, (job.hidden + 1) // 2  # pairs
    weights = job.packed + (d * job.padded + j) // LANES * (F + H) * ROW_BYTES
    scales = job.column_scales + 16 * (d * job.padded + j)
    start_sums(job, d, j, n, x_table, acc, True)
    bahdanau_product_int16(n, acc, ROW_BYTES, x_table, weights, ROW_BYTES, F)
    weights += F * ROW_BYTES
    r = 0
    for tiles in range((n + INT16_ROWS - 1) // INT16_ROWS, 0, -1):
        rows = (n - r + tiles - 1) // tiles
        at = acc + r * ROW_BYTES
        tile_int16(rows, at, ROW_BYTES, h_table + 8 * r, 0, weights, ROW_BYTES, H)
        for i in range(rows):
            for g in range(4):
                gate = at + i * ROW_BYTES + g * GATE
                start = start_of_sum(job, d, j, g, peek(x_table + 8 * (r + i)))
                store(gate, fma(load_int32(gate), load(scales + g * GATE), start))
        r += rows
    cells(n, acc, c_table, new_table, j)


@library_function(2)
def bahdanau_predict_part(address, part):
    """Runs one part of a call: writes its outputs and last states."""
    job = job_at(address)
    T, F, H, HP, D = job.time, job.features, job.hidden, job.padded, job.directions
    group = part % job.groups
    first_direction, end_direction = directions_of(job, part)
    R = peek(job.group_size + 8 * group)
    rows = job.rows + 8 * peek(job.group_start + 8 * group)
    x_bytes, h_bytes = 4 * (F + LANES), 4 * HP
    scratch = allocate(R * (56 + x_bytes + 4 * h_bytes + ROW_BYTES))
    c = scratch
    h = c + R * h_bytes  # two a row
    acc = h + 2 * R * h_bytes
    h_int16 = acc + R * ROW_BYTES
    x_rows = h_int16 + R * h_bytes
    active = x_rows + R * x_bytes
    x_table, h_table, c_table, new_table, acc_table, states = (
        active + 8 * R, active + 16 * R, active + 24 * R, active + 32 * R, active + 40 * R, active + 48 * R,
    )  # fmt: skip
    for r in range(R):
        poke(acc_table + 8 * r, acc + r * ROW_BYTES)
    if job.int16:
        zero(x_rows, R * x_bytes // 4)
        zero(h_int16, R * HP)

    for d in range(first_direction, end_direction):
        zero(c, 3 * R * HP)
        for r in range(R):
            start = 4 * H * (d * job.batch + peek(rows + 8 * r))
            at = h + 2 * r * h_bytes
            poke(states + 8 * r, at)
            copy(at, job.h0 + start, H)
            copy(c + r * h_bytes, job.c0 + start, H)
            if job.int16:
                to_int16(h_int16 + r * h_bytes, at, H)
        backwards = (d == 1) != (job.reverse != 0)
        ahead = -1 if backwards else 1
        for step in range(T):
            t = T - 1 - step if backwards else step
            n = active_rows(job, group, t, active)
            if n < R:
                for r in range(R):
                    b = peek(rows + 8 * r)
                    if not peek8(job.mask + b * T + t):
                        zero(job.out + 4 * H * ((b * T + t) * D + d), H)
            for i in range(n):
                r = peek(active + 8 * i)
                b = peek(rows + 8 * r)
                x = input_row(job, d, b, t)
                if 0 <= t + ahead < T:
                    send_for(input_row(job, d, b, t + ahead), 16 * H if job.lookup else 4 * F)
                    send_to_write(job.out + 4 * H * ((b * T + t + ahead) * D + d), 4 * H)
                state = peek(states + 8 * r)
                other = 2 * h + (4 * r + 1) * h_bytes - state
                poke(h_table + 8 * i, state)
                poke(c_table + 8 * i, c + r * h_bytes)
                poke(new_table + 8 * i, other)
                poke(states + 8 * r, other)
                if job.int16:
                    poke(h_table + 8 * i, h_int16 + r * h_bytes)
                poke(x_table + 8 * i, x)
                if not job.lookup:
                    # Rows of x are often a power of two apart, so that they compete for places in the cache.
                    at = x_rows + i * x_bytes
                    poke(x_table + 8 * i, at)
                    if job.int16:
                        to_int16(at, x, F)
                    else:
                        copy(at, x, F)
            for j in range(0, HP, LANES):
                if job.int16:
                    int16_units(job, d, j, n, x_table, h_table, c_table, new_table, acc)
                else:
                    float32_units(
                        job, d, j, n, x_table, h_table, c_table, new_table, acc, acc_table
                    )
            for i in range(n):
                new, b = peek(new_table + 8 * i), peek(rows + 8 * peek(active + 8 * i))
                copy(job.out + 4 * H * ((b * T + t) * D + d), new, H)
                if job.int16:
                    to_int16(peek(h_table + 8 * i), new, H)
        for r in range(R):
            start = 4 * H * (d * job.batch + peek(rows + 8 * r))
            copy(job.h + start, peek(states + 8 * r), H)
            copy(job.c + start, c + r * h_bytes, H)
    free(scratch)
    return 0
