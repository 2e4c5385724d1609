"""The forward pass. A part walks through time with only the rows that are real, so padding costs nothing."""

from bahdanau_jax.layers.cpu_kernel.bfloat16 import narrow
from bahdanau_jax.layers.cpu_kernel.build import free, library_function, memset, njit
from bahdanau_jax.layers.cpu_kernel.job import (
    active_rows,
    directions_of,
    job_at,
    load_input,
    panel_rows,
    record_bytes,
    record_start,
    write,
)
from bahdanau_jax.layers.cpu_kernel.product import product
from bahdanau_jax.layers.cpu_kernel.simd import (
    LANES,
    ROW_BYTES,
    apart,
    fma,
    load,
    peek,
    peek8,
    poke,
    store,
)
from bahdanau_jax.layers.cpu_kernel.vectors import (
    allocate,
    copy,
    sigmoid,
    tanh,
    zero,
)


@njit
def gate_sums(job, d, j, n, x_table, h_table, acc):
    """Writes the gates of n rows before their nonlinearity, for LANES units from unit j on.

    `x_table` and `h_table` hold the addresses of the rows' inputs and states. The sums are
    [n, 4 gates, LANES] float32.
    """
    apart()
    F, H = panel_rows(job, job.features), panel_rows(job, job.hidden)
    for i in range(n):
        for g in range(4):
            bias = load(job.packed_bias + 16 * (d * job.padded + j) + 4 * g * LANES)
            store(acc + i * ROW_BYTES + 4 * g * LANES, bias)
    weights = job.packed + (d * job.padded + j) // LANES * (F + H) * ROW_BYTES
    product(job, n, acc, x_table, weights, F)
    product(job, n, acc, h_table, weights + F * ROW_BYTES, H)


@library_function(2)
def bahdanau_forward_part(address, part):
    """Runs one part of a call: writes its outputs, last states and, if the job says so, its records."""
    job = job_at(address)
    T, F, H, HP, D = job.time, job.features, job.hidden, job.padded, job.directions
    group = part % job.groups
    first_direction, end_direction = directions_of(job, part)
    R = peek(job.group_size + 8 * group)
    rows = job.rows + 8 * peek(job.group_start + 8 * group)
    x_bytes, h_bytes, row_bytes = 4 * (F + LANES), 4 * HP, job.itemsize * H
    r_bytes = record_bytes(job)
    scratch = allocate(R * (24 + x_bytes + 4 * h_bytes + ROW_BYTES))
    x = scratch
    h = x + R * x_bytes
    c = h + R * h_bytes
    new_h = c + R * h_bytes
    h_bfloat16 = new_h + R * h_bytes
    acc = h_bfloat16 + R * h_bytes
    active = acc + R * ROW_BYTES
    x_table = active + 8 * R
    h_table = x_table + 8 * R
    for r in range(R):
        poke(x_table + 8 * r, x + r * x_bytes)
        zero(x + r * x_bytes, F + LANES)

    for d in range(first_direction, end_direction):
        record = record_start(job, d, group)
        for r in range(R):
            start = 4 * H * (d * job.batch + peek(rows + 8 * r))
            zero(h + r * h_bytes, HP)
            zero(c + r * h_bytes, HP)
            copy(h + r * h_bytes, job.h0 + start, H)
            copy(c + r * h_bytes, job.c0 + start, H)
        backwards = (d == 1) != (job.reverse != 0)
        ahead = -1 if backwards else 1
        for step in range(T):
            t = T - 1 - step if backwards else step
            n = active_rows(job, group, t, active)
            if n < R:
                for r in range(R):
                    b = peek(rows + 8 * r)
                    if not peek8(job.mask + b * T + t):
                        memset(job.out + row_bytes * ((b * T + t) * D + d), 0, row_bytes)
            for i in range(n):
                r = peek(active + 8 * i)
                load_input(job, d, peek(rows + 8 * r), t, ahead, x + i * x_bytes)
                poke(h_table + 8 * i, h + r * h_bytes)
                if job.bfloat16:
                    narrow(
                        x + i * x_bytes, x + i * x_bytes, F + F % 2
                    )  # a 0 completes the last pair
                    narrow(h_bfloat16 + i * h_bytes, h + r * h_bytes, HP)
                    poke(h_table + 8 * i, h_bfloat16 + i * h_bytes)
            for j in range(0, HP, LANES):
                gate_sums(job, d, j, n, x_table, h_table, acc)
                for i in range(n):
                    at = acc + i * ROW_BYTES
                    gate_i, gate_f = sigmoid(load(at)), sigmoid(load(at + 4 * LANES))
                    gate_g, gate_o = tanh(load(at + 8 * LANES)), sigmoid(load(at + 12 * LANES))
                    at = c + peek(active + 8 * i) * h_bytes + 4 * j
                    cell = load(at)
                    new_cell = fma(gate_f, cell, gate_i * gate_g)
                    store(at, new_cell)
                    store(new_h + i * h_bytes + 4 * j, gate_o * tanh(new_cell))
                    if job.save:
                        at = record + i * r_bytes + 16 * j
                        store(at, gate_i)
                        store(at + 4 * LANES, gate_f)
                        store(at + 8 * LANES, gate_g)
                        store(at + 12 * LANES, gate_o)
                        store(record + i * r_bytes + 4 * h_bytes + 4 * j, cell)
            for i in range(n):
                r = peek(active + 8 * i)
                if job.save:
                    copy(record + 5 * h_bytes, h + r * h_bytes, HP)
                    record += r_bytes
                copy(h + r * h_bytes, new_h + i * h_bytes, HP)
                to = job.out + row_bytes * ((peek(rows + 8 * r) * T + t) * D + d)
                write(job, to, new_h + i * h_bytes, H)
        for r in range(R):
            start = 4 * H * (d * job.batch + peek(rows + 8 * r))
            copy(job.h + start, h + r * h_bytes, H)
            copy(job.c + start, c + r * h_bytes, H)
    free(scratch)
    return 0
