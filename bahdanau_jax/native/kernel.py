"""One LSTM layer, forward, as a numba kernel on raw float32 memory; and what backward.py shares with it.

A call is split into parts that any thread may run; `Job` describes it. A part is a group of batch rows in
one direction, or in both one after the other. It walks through time with the rows that are real at that
step and no others, so padding costs nothing. Gates of LANES hidden units stand together as a panel
[i|f|g|o]: one tile of the product gives all the cell needs.
"""

import numba
import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from bahdanau_jax.native.build import aligned_alloc, f32, free, i64, library_function, njit
from bahdanau_jax.native.simd import (
    LANES,
    ROW_BYTES,
    TILE_ROWS,
    any_tile,
    apart,
    fma,
    load,
    loadf,
    peek,
    peek8,
    poke,
    prefetch,
    sigmoid,
    splat,
    store,
    storef,
    tanh,
)

FIELDS = """next done holders parts groups backward
  batch time features hidden padded directions reverse save
  x mask scale w u  bias h0 c0  records d_out d_h d_c
  out h c  d_x d_w d_u d_bias d_h0 d_c0
  packed packed_t packed_bias gradients d_x_second counts group_size group_start rows""".split()
JOB = np.dtype([(name, np.int64) for name in FIELDS])
Job = numba.from_dtype(JOB)

tile, tile_transposed = any_tile(False), any_tile(True)

DEPTH = 128  # rows of a panel of weights kept in the first cache while the tiles pass over it


@intrinsic
def _job_pointer(typingctx, address):
    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(Job)(i64), codegen


@njit
def job_at(address):
    return carray(_job_pointer(address), (1,))[0]


@njit
def allocate(size):
    return aligned_alloc(i64(64), (size + 127) // 64 * 64)


@njit
def copy(to, source, n):
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store(to + 4 * k, load(source + 4 * k))
    for k in range(whole, n):
        storef(to + 4 * k, loadf(source + 4 * k))


@njit
def add(to, source, n):
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store(to + 4 * k, load(to + 4 * k) + load(source + 4 * k))
    for k in range(whole, n):
        storef(to + 4 * k, loadf(to + 4 * k) + loadf(source + 4 * k))


@njit
def multiply(to, source, factor, n):
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store(to + 4 * k, load(source + 4 * k) * load(factor + 4 * k))
    for k in range(whole, n):
        storef(to + 4 * k, loadf(source + 4 * k) * loadf(factor + 4 * k))


@njit
def zero(to, n):
    apart()
    whole = n // LANES * LANES
    for k in range(0, whole, LANES):
        store(to + 4 * k, splat(f32(0.0)))
    for k in range(whole, n):
        storef(to + 4 * k, f32(0.0))


@njit
def send_for(address, size):
    """Prefetch: rows of one step lie far apart, the processor does not guess the next."""
    for k in range(0, size, 64):
        prefetch(address + k)


@library_function(7)
def bahdanau_product(rows, acc, acc_stride, table, b, b_stride, depth):
    """acc[r, :PANEL] += a[r, :depth] @ b[:depth, :PANEL]; table: the addresses of a's rows."""
    apart()
    for k in range(0, depth, DEPTH):
        r = 0
        for tiles in range((rows + TILE_ROWS - 1) // TILE_ROWS, 0, -1):
            n = (rows - r + tiles - 1) // tiles
            at = acc + r * acc_stride
            tile(
                n,
                at,
                acc_stride,
                table + 8 * r,
                4 * k,
                b + k * b_stride,
                b_stride,
                min(DEPTH, depth - k),
            )
            r += n
    return 0


@library_function(7)
def bahdanau_product_transposed(rows, acc, acc_stride, table, b, b_stride, depth):
    """acc[r, :PANEL] += sum over k of a[k, r] * b[k, :PANEL]; table: the addresses of a's rows."""
    apart()
    r = 0
    for tiles in range((rows + TILE_ROWS - 1) // TILE_ROWS, 0, -1):
        n = (rows - r + tiles - 1) // tiles
        tile_transposed(n, acc + r * acc_stride, acc_stride, table, 4 * r, b, b_stride, depth)
        r += n
    return 0


@njit
def active_rows(job, group, t, active):
    """Writes the group's row numbers that are real at step t, returns how many."""
    apart()
    rows = job.rows + 8 * peek(job.group_start + 8 * group)
    n = 0
    for r in range(peek(job.group_size + 8 * group)):
        if peek8(job.mask + peek(rows + 8 * r) * job.time + t):
            poke(active + 8 * n, r)
            n += 1
    return n


@njit
def load_input(job, d, batch_row, t, ahead, to):
    """Copies one row of x, scaled as direction d has it; the row of step t + ahead is sent for."""
    apart()
    at = job.x + 4 * job.features * (batch_row * job.time + t)
    send_for(at + 4 * job.features * ahead, 4 * job.features)
    if job.scale:
        factor = job.scale + 4 * job.features * (d * job.batch + batch_row)
        multiply(to, at, factor, job.features)
    else:
        copy(to, at, job.features)


@njit
def record_start(job, d, group):
    """Address of the group's records of direction d: [gates (4), cell before, output before] * padded."""
    before = i64(0)
    for g in range(group):
        before += peek(job.counts + 8 * g)
    return job.records + 24 * job.padded * (d * job.batch * job.time + before)


@njit
def directions_of(job, part):
    """The first direction of a part, and the one behind its last."""
    if job.parts == job.groups:
        return i64(0), job.directions
    return part // job.groups, part // job.groups + 1


@library_function(2)
def bahdanau_forward_part(address, part):
    job = job_at(address)
    T, F, H, HP, D = job.time, job.features, job.hidden, job.padded, job.directions
    group = part % job.groups
    first_direction, end_direction = directions_of(job, part)
    R = peek(job.group_size + 8 * group)
    rows = job.rows + 8 * peek(job.group_start + 8 * group)
    panel_bytes = (F + H) * ROW_BYTES
    x_bytes, h_bytes = 4 * (F + LANES), 4 * HP
    scratch = allocate(R * (24 + x_bytes + 3 * h_bytes + ROW_BYTES))
    x = scratch
    h = x + R * x_bytes
    c = h + R * h_bytes
    new_h = c + R * h_bytes
    acc = new_h + R * h_bytes
    active = acc + R * ROW_BYTES
    x_table = active + 8 * R
    h_table = x_table + 8 * R
    for r in range(R):
        poke(x_table + 8 * r, x + r * x_bytes)

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
                        zero(job.out + 4 * H * ((b * T + t) * D + d), H)
            for i in range(n):
                r = peek(active + 8 * i)
                load_input(job, d, peek(rows + 8 * r), t, ahead, x + i * x_bytes)
                poke(h_table + 8 * i, h + r * h_bytes)
            for j in range(0, HP, LANES):
                bias = job.packed_bias + 16 * (d * HP + j)
                bias_i, bias_f = load(bias), load(bias + 4 * LANES)
                bias_g, bias_o = load(bias + 8 * LANES), load(bias + 12 * LANES)
                for i in range(n):
                    store(acc + i * ROW_BYTES, bias_i)
                    store(acc + i * ROW_BYTES + 4 * LANES, bias_f)
                    store(acc + i * ROW_BYTES + 8 * LANES, bias_g)
                    store(acc + i * ROW_BYTES + 12 * LANES, bias_o)
                weights = job.packed + (d * HP + j) // LANES * panel_bytes
                bahdanau_product(n, acc, ROW_BYTES, x_table, weights, ROW_BYTES, F)
                bahdanau_product(n, acc, ROW_BYTES, h_table, weights + F * ROW_BYTES, ROW_BYTES, H)
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
                        at = record + i * 6 * h_bytes + 16 * j
                        store(at, gate_i)
                        store(at + 4 * LANES, gate_f)
                        store(at + 8 * LANES, gate_g)
                        store(at + 12 * LANES, gate_o)
                        store(record + i * 6 * h_bytes + 4 * h_bytes + 4 * j, cell)
            for i in range(n):
                r = peek(active + 8 * i)
                if job.save:
                    copy(record + 5 * h_bytes, h + r * h_bytes, HP)
                    record += 6 * h_bytes
                copy(h + r * h_bytes, new_h + i * h_bytes, HP)
                copy(
                    job.out + 4 * H * ((peek(rows + 8 * r) * T + t) * D + d), new_h + i * h_bytes, H
                )
        for r in range(R):
            start = 4 * H * (d * job.batch + peek(rows + 8 * r))
            copy(job.h + start, h + r * h_bytes, H)
            copy(job.c + start, c + r * h_bytes, H)
    free(scratch)
    return 0
