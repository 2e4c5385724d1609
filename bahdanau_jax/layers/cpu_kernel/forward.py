"""The forward pass. A part walks through time with only the rows that are real, so padding costs nothing.

A row has two outputs in turn: a step reads one and writes the other.
"""

from bahdanau_jax.layers.cpu_kernel.bfloat16 import narrow
from bahdanau_jax.layers.cpu_kernel.build import free, library_function, memset, njit
from bahdanau_jax.layers.cpu_kernel.job import (
    active_rows,
    directions_of,
    job_at,
    load_input,
    panel_rows,
    record,
    record_bytes,
    record_start,
    write,
)
from bahdanau_jax.layers.cpu_kernel.product import product
from bahdanau_jax.layers.cpu_kernel.simd import (
    LANES,
    ROW_BYTES,
    apart,
    fence,
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
    scratch = allocate(R * (48 + x_bytes + 4 * h_bytes + ROW_BYTES))
    x = scratch
    c = x + R * x_bytes
    h = c + R * h_bytes  # two a row
    h_bfloat16 = h + 2 * R * h_bytes
    acc = h_bfloat16 + R * h_bytes
    active = acc + R * ROW_BYTES
    x_table, h_table, old_table, new_table, states = (
        active + 8 * R, active + 16 * R, active + 24 * R, active + 32 * R, active + 40 * R
    )  # fmt: skip
    for r in range(R):
        poke(x_table + 8 * r, x + r * x_bytes)
        zero(x + r * x_bytes, F + LANES)

    for d in range(first_direction, end_direction):
        records = record_start(job, d, group)
        zero(c, 3 * R * HP)
        for r in range(R):
            start, at = 4 * H * (d * job.batch + peek(rows + 8 * r)), h + 2 * r * h_bytes
            poke(states + 8 * r, at)
            copy(at, job.h0 + start, H)
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
                old = peek(states + 8 * r)
                new = 2 * h + (4 * r + 1) * h_bytes - old
                poke(states + 8 * r, new)
                poke(old_table + 8 * i, old)
                poke(new_table + 8 * i, new)
                poke(h_table + 8 * i, old)
                if job.bfloat16:
                    at = x + i * x_bytes
                    narrow(at, at, F + F % 2)  # a 0 completes the last pair
                    narrow(h_bfloat16 + i * h_bytes, old, HP)
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
                    store(peek(new_table + 8 * i) + 4 * j, gate_o * tanh(new_cell))
                    if job.save:
                        at = records + i * r_bytes + 16 * j
                        record(job, at, gate_i)
                        record(job, at + 4 * LANES, gate_f)
                        record(job, at + 8 * LANES, gate_g)
                        record(job, at + 12 * LANES, gate_o)
                        at = records + i * r_bytes + 4 * (h_bytes + j)
                        record(job, at, cell)
                        record(job, at + h_bytes, load(peek(old_table + 8 * i) + 4 * j))
            for i in range(n):
                b = peek(rows + 8 * peek(active + 8 * i))
                to = job.out + row_bytes * ((b * T + t) * D + d)
                write(job, to, peek(new_table + 8 * i), H)
            records += n * r_bytes
        for r in range(R):
            start = 4 * H * (d * job.batch + peek(rows + 8 * r))
            copy(job.h + start, peek(states + 8 * r), H)
            copy(job.c + start, c + r * h_bytes, H)
    fence()
    free(scratch)
    return 0
