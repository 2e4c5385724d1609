"""The backward pass. It walks back through time and gathers (row, step) pairs for large products."""

from bahdanau_jax.layers.cpu_kernel.build import f32, free, i64, library_function, njit
from bahdanau_jax.layers.cpu_kernel.job import (
    active_rows,
    directions_of,
    job_at,
    load_input,
    record_start,
)
from bahdanau_jax.layers.cpu_kernel.product import bahdanau_product, bahdanau_product_transposed
from bahdanau_jax.layers.cpu_kernel.simd import (
    LANES,
    PANEL,
    ROW_BYTES,
    apart,
    fma,
    load,
    peek,
    peek8,
    poke,
    splat,
    store,
)
from bahdanau_jax.layers.cpu_kernel.vectors import (
    add,
    allocate,
    copy,
    multiply,
    send_for,
    tanh,
    zero,
)

GATHER = 128  # (row, step) pairs per product that forms the gradients of inputs and weights


@njit
def cell_backward(at, d_gates, d_h, d_c, h_bytes):
    """One row: computes the gradients of the gates and of the old cell from its record, d_h and d_c."""
    apart()
    one = splat(f32(1.0))
    for j in range(0, h_bytes // 4, LANES):
        gates = at + 16 * j
        i, f = load(gates), load(gates + 4 * LANES)
        g, o = load(gates + 8 * LANES), load(gates + 12 * LANES)
        cell = load(at + 4 * h_bytes + 4 * j)
        tanh_c = tanh(fma(f, cell, i * g))
        dh = load(d_h + 4 * j)
        dc = fma(dh * o, one - tanh_c * tanh_c, load(d_c + 4 * j))
        to = d_gates + 16 * j
        store(to, dc * g * i * (one - i))
        store(to + 4 * LANES, dc * cell * f * (one - f))
        store(to + 8 * LANES, dc * i * (one - g * g))
        store(to + 12 * LANES, dh * tanh_c * o * (one - o))
        store(d_c + 4 * j, dc * f)


@njit
def flush(job, d, m, tables, acc, gradient):
    """Adds the gradients of inputs, weights and bias for m gathered (row, step) pairs."""
    apart()
    F, H, HP = job.features, job.hidden, job.padded
    x_table, h_table, g_table, d_x_table, scale_table = tables
    g_stride = peek(g_table + 8) - peek(g_table)
    columns = (F + PANEL - 1) // PANEL
    for p in range(columns):
        width = min(PANEL, F - p * PANEL)
        for i in range(m):
            zero(acc + i * ROW_BYTES, PANEL)
        weights = job.packed_t + 4 * HP * ROW_BYTES * (d * (columns + (H + PANEL - 1) // PANEL) + p)
        bahdanau_product(m, acc, ROW_BYTES, g_table, weights, ROW_BYTES, 4 * HP)
        for i in range(m):
            at = acc + i * ROW_BYTES
            if job.scale:
                multiply(at, at, peek(scale_table + 8 * i) + 4 * p * PANEL, width)
            if d == 0 or job.d_x_second:
                copy(peek(d_x_table + 8 * i) + 4 * p * PANEL, at, width)
            else:
                add(peek(d_x_table + 8 * i) + 4 * p * PANEL, at, width)
    d_gates = peek(g_table)
    for j in range(HP // LANES):
        at = gradient + j * (F + H + 1) * ROW_BYTES
        bahdanau_product_transposed(F, at, ROW_BYTES, x_table, d_gates + j * ROW_BYTES, g_stride, m)
        bahdanau_product_transposed(
            H, at + F * ROW_BYTES, ROW_BYTES, h_table, d_gates + j * ROW_BYTES, g_stride, m
        )
        for i in range(m):
            add(at + (F + H) * ROW_BYTES, d_gates + i * g_stride + j * ROW_BYTES, PANEL)


@library_function(2)
def bahdanau_backward_part(address, part):
    """Runs one part of a call: writes the gradients of its inputs and states, and its group's of weights."""
    job = job_at(address)
    T, F, H, HP, D = job.time, job.features, job.hidden, job.padded, job.directions
    group = part % job.groups
    first_direction, end_direction = directions_of(job, part)
    R = peek(job.group_size + 8 * group)
    rows = job.rows + 8 * peek(job.group_start + 8 * group)
    M = GATHER + R  # room for the gathered pairs
    x_bytes, h_bytes, g_bytes = 4 * (F + LANES), 4 * HP, 16 * HP + 64
    scratch = allocate(M * (x_bytes + g_bytes + ROW_BYTES + 40) + R * (2 * h_bytes + 8) + 16)
    x = scratch
    d_gates = x + M * x_bytes
    acc = d_gates + M * g_bytes
    d_h = acc + M * ROW_BYTES
    d_c = d_h + R * h_bytes
    x_table = d_c + R * h_bytes
    h_table = x_table + 8 * M
    g_table = h_table + 8 * M
    d_x_table = g_table + 8 * M + 8
    scale_table = d_x_table + 8 * M
    active = scale_table + 8 * M
    for i in range(M):
        poke(x_table + 8 * i, x + i * x_bytes)
        poke(g_table + 8 * i, d_gates + i * g_bytes)
    poke(g_table + 8 * M, d_gates + M * g_bytes)
    tables = (x_table, h_table, g_table, d_x_table, scale_table)
    columns, h_columns = (F + PANEL - 1) // PANEL, (H + PANEL - 1) // PANEL

    for d in range(first_direction, end_direction):
        record = record_start(job, d, group) + 6 * h_bytes * peek(job.counts + 8 * group)
        gradient = job.gradients + (group * D + d) * (F + H + 1) * 16 * HP
        d_x = job.d_x_second if d == 1 and job.d_x_second else job.d_x
        zero(gradient, (F + H + 1) * 4 * HP)
        for r in range(R):
            start = 4 * H * (d * job.batch + peek(rows + 8 * r))
            zero(d_h + r * h_bytes, HP)
            zero(d_c + r * h_bytes, HP)
            copy(d_h + r * h_bytes, job.d_h + start, H)
            copy(d_c + r * h_bytes, job.d_c + start, H)
        backwards = (d == 1) != (job.reverse != 0)
        ahead = 1 if backwards else -1
        m = i64(0)
        for step in range(T - 1, -1, -1):
            t = T - 1 - step if backwards else step
            n = active_rows(job, group, t, active)
            if n < R and d == 0:
                for r in range(R):
                    b = peek(rows + 8 * r)
                    if not peek8(job.mask + b * T + t):
                        zero(job.d_x + 4 * F * (b * T + t), F)
            if n == 0:
                continue
            record -= 6 * h_bytes * n
            for i in range(n):
                r = peek(active + 8 * i)
                b = peek(rows + 8 * r)
                load_input(job, d, b, t, ahead, x + (m + i) * x_bytes)
                poke(h_table + 8 * (m + i), record + i * 6 * h_bytes + 5 * h_bytes)
                poke(d_x_table + 8 * (m + i), d_x + 4 * F * (b * T + t))
                poke(scale_table + 8 * (m + i), job.scale + 4 * F * (d * job.batch + b))
                d_out = job.d_out + 4 * H * ((b * T + t) * D + d)
                add(d_h + r * h_bytes, d_out, H)
                send_for(d_out + 4 * H * D * ahead, 4 * H)
                to = d_gates + (m + i) * g_bytes
                cell_backward(
                    record + i * 6 * h_bytes, to, d_h + r * h_bytes, d_c + r * h_bytes, h_bytes
                )
            for p in range(h_columns):
                for i in range(n):
                    zero(acc + i * ROW_BYTES, PANEL)
                weights = job.packed_t + 4 * HP * ROW_BYTES * (
                    d * (columns + h_columns) + columns + p
                )
                bahdanau_product(n, acc, ROW_BYTES, g_table + 8 * m, weights, ROW_BYTES, 4 * HP)
                for i in range(n):
                    to = d_h + peek(active + 8 * i) * h_bytes + 4 * p * PANEL
                    copy(to, acc + i * ROW_BYTES, min(PANEL, H - p * PANEL))
            m += n
            if m >= GATHER:
                flush(job, d, m, tables, acc, gradient)
                m = i64(0)
        if m:
            flush(job, d, m, tables, acc, gradient)
        for r in range(R):
            start = 4 * H * (d * job.batch + peek(rows + 8 * r))
            copy(job.d_h0 + start, d_h + r * h_bytes, H)
            copy(job.d_c0 + start, d_c + r * h_bytes, H)
    free(scratch)
    return 0
