"""The backward pass. It walks back through time and gathers (row, step) pairs for large products."""

from bahdanau_jax.layers.cpu_kernel.bfloat16 import add_bfloat16, narrow, pair_rows, widen
from bahdanau_jax.layers.cpu_kernel.build import f32, free, i64, library_function, memset, njit
from bahdanau_jax.layers.cpu_kernel.job import (
    active_rows,
    directions_of,
    job_at,
    load_input,
    panel_rows,
    panels_of,
    record_bytes,
    record_start,
    write,
)
from bahdanau_jax.layers.cpu_kernel.product import product, product_transposed
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
    add_rows,
    allocate,
    copy,
    multiply,
    send_for,
    tanh,
    zero,
)

# (row, step) pairs per product that forms the gradients of inputs and weights. Twice as many halve the passes
# over gradients that do not fit into the L2 cache.
GATHER = 128


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
    x_table, h_table, g_table, d_x_table, scale_table, pair_table = tables
    g_stride = peek(g_table + 8) - peek(g_table)
    d_gates = peek(g_table) - job.bfloat16 * 16 * HP
    columns = panels_of(F)
    for p in range(columns):
        width = min(PANEL, F - p * PANEL)
        for i in range(m):
            zero(acc + i * ROW_BYTES, PANEL)
        gate_rows = panel_rows(job, 4 * HP)
        panel = d * (columns + panels_of(H)) + p
        product(job, m, acc, g_table, job.packed_t + panel * gate_rows * ROW_BYTES, gate_rows)
        for i in range(m):
            at = acc + i * ROW_BYTES
            to = peek(d_x_table + 8 * i) + job.itemsize * p * PANEL
            factor, first = peek(scale_table + 8 * i) + 4 * p * PANEL, d == 0 or job.d_x_second
            if job.scale and first and not job.bfloat16:
                multiply(to, at, factor, width)
                continue
            if job.scale:
                multiply(at, at, factor, width)
            if first:
                write(job, to, at, width)
            elif job.bfloat16:
                narrow(at, at, width)  # as where the other direction has its own buffer
                add_bfloat16(to, at, width)
            else:
                add(to, at, width)
    even = m + m % 2
    if job.bfloat16:
        if m % 2:  # a row of zeros completes the last pair
            zero(d_gates + m * g_stride, 4 * HP)
            zero(peek(x_table + 8 * m), F + LANES)
            poke(h_table + 8 * m, d_gates + m * g_stride)
        pair_rows(peek(x_table), peek(x_table + 8) - peek(x_table), x_table, 0, even, F)
        pair_rows(peek(pair_table), 4 * HP, h_table, 0, even, H)
        h_table = pair_table
    for j in range(HP // LANES):
        at, panel = gradient + j * (F + H + 1) * ROW_BYTES, d_gates + j * ROW_BYTES
        add_rows(at + (F + H) * ROW_BYTES, panel, g_stride, m)
        if job.bfloat16:
            pair_rows(panel, g_stride, g_table, panel - peek(g_table), even, PANEL)
        product_transposed(job, F, at, x_table, panel, g_stride, panel_rows(job, m))
        product_transposed(job, H, at + F * ROW_BYTES, h_table, panel, g_stride, panel_rows(job, m))


@library_function(2)
def bahdanau_backward_part(address, part):
    """Runs one part of a call: writes the gradients of its inputs and states, and its group's of weights."""
    job = job_at(address)
    T, F, H, HP, D = job.time, job.features, job.hidden, job.padded, job.directions
    group = part % job.groups
    first_direction, end_direction = directions_of(job, part)
    R = peek(job.group_size + 8 * group)
    rows = job.rows + 8 * peek(job.group_start + 8 * group)
    gather = GATHER * (1 + job.large)
    M = gather + R  # room for the gathered pairs
    x_bytes, h_bytes, r_bytes = 4 * (F + LANES), 4 * HP, record_bytes(job)
    g_bytes = (16 + 8 * job.bfloat16) * HP + 64  # of float32, and of the same in bfloat16 behind
    pair_bytes = job.bfloat16 * (h_bytes + 8)
    scratch = allocate(
        M * (x_bytes + g_bytes + ROW_BYTES + 40 + pair_bytes) + R * (2 * h_bytes + 8) + 16
    )
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
    pair_table = active + 8 * R  # of rows that hold the states of two pairs
    for i in range(M):
        poke(x_table + 8 * i, x + i * x_bytes)
        poke(g_table + 8 * i, d_gates + i * g_bytes + job.bfloat16 * 16 * HP)
        if job.bfloat16:
            poke(pair_table + 8 * i, pair_table + 8 * M + i * h_bytes)
    poke(g_table + 8 * M, peek(g_table) + M * g_bytes)
    tables = (x_table, h_table, g_table, d_x_table, scale_table, pair_table)
    columns, h_columns = panels_of(F), panels_of(H)
    gate_rows, row_bytes = panel_rows(job, 4 * HP), job.itemsize * F

    for d in range(first_direction, end_direction):
        record = record_start(job, d, group) + r_bytes * peek(job.counts + 8 * group)
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
                        memset(job.d_x + row_bytes * (b * T + t), 0, row_bytes)
            if n == 0:
                continue
            record -= r_bytes * n
            for i in range(n):
                r = peek(active + 8 * i)
                b = peek(rows + 8 * r)
                load_input(job, d, b, t, ahead, x + (m + i) * x_bytes)
                poke(h_table + 8 * (m + i), record + i * r_bytes + 5 * h_bytes)
                poke(d_x_table + 8 * (m + i), d_x + row_bytes * (b * T + t))
                poke(scale_table + 8 * (m + i), job.scale + 4 * F * (d * job.batch + b))
                d_out = job.d_out + job.itemsize * H * ((b * T + t) * D + d)
                send_for(d_out + job.itemsize * H * D * ahead, job.itemsize * H)
                # Of the next step, if as many rows are real.
                send_for(record + (i - n) * r_bytes, r_bytes)
                to = d_gates + (m + i) * g_bytes
                if job.bfloat16:
                    widen(to, d_out, H)
                    d_out = to
                add(d_h + r * h_bytes, d_out, H)
                cell_backward(
                    record + i * r_bytes, to, d_h + r * h_bytes, d_c + r * h_bytes, h_bytes
                )
                if job.bfloat16:
                    narrow(to + 16 * HP, to, 4 * HP)
            for p in range(h_columns):
                for i in range(n):
                    zero(acc + i * ROW_BYTES, PANEL)
                weights = job.packed_t + gate_rows * ROW_BYTES * (
                    d * (columns + h_columns) + columns + p
                )
                product(job, n, acc, g_table + 8 * m, weights, gate_rows)
                for i in range(n):
                    to = d_h + peek(active + 8 * i) * h_bytes + 4 * p * PANEL
                    copy(to, acc + i * ROW_BYTES, min(PANEL, H - p * PANEL))
            m += n
            if m >= gather:
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
