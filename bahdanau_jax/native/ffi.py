"""The kernels as a C function that XLA calls, with no Python in between.

XLA hands over an XLA_FFI_CallFrame (jaxlib/include/xla/ffi/api/c_api.h, version 0.x), which is read by
offsets. The parts of a call run on the calling thread and on those of XLA's thread pool that are free: each
takes the next part until none is left, so a call ends even where the pool is busy or has one thread.
"""

import sys

import numpy as np

from bahdanau_jax.native.backward import bahdanau_backward_part
from bahdanau_jax.native.build import (
    compiled,
    f32,
    free,
    i64,
    library_function,
    madvise,
    njit,
    types,
    usleep,
)
from bahdanau_jax.native.kernel import (
    FIELDS,
    add,
    allocate,
    bahdanau_forward_part,
    copy,
    job_at,
    zero,
)
from bahdanau_jax.native.simd import (
    LANES,
    PANEL,
    ROW_BYTES,
    TILE_ROWS,
    apart,
    atomic_add,
    call,
    loadf,
    peek,
    peek8,
    peek32,
    poke,
    poke32,
    storef,
    symbol_address,
)

# Offsets in XLA_FFI_CallFrame,
EXTENSION, API, CONTEXT, STAGE, ARGUMENTS, RESULT_COUNT, RESULTS, ATTRIBUTES = (
    8,
    16,
    24,
    32,
    72,
    96,
    112,
    160,
)
# in XLA_FFI_Buffer, in XLA_FFI_Api, and in Job.
BUFFER_DATA, BUFFER_DIMS = 24, 40
API_MINOR, ERROR_DESTROY, POOL_SCHEDULE, POOL_SIZE = 36, np.int64(64), np.int64(136), np.int64(144)
NEXT, DONE, HOLDERS, X, BIAS, RECORDS, OUT, D_X = (
    8 * FIELDS.index(name)
    for name in ("next", "done", "holders", "x", "bias", "records", "out", "d_x")
)
JOB_BYTES = np.int64(8 * len(FIELDS))
EXECUTE = 3
MANY_ROWS = 32  # rows over which a pass over the weights is well spent
LINUX = sys.platform.startswith("linux")


@njit
def pack(job):
    """Weights in the order the products read them; see `tile`."""
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
def pack_transposed(job):
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
    """Adds the groups' gradients in a fixed order, back into the callers' layout."""
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
    """Adds the second direction's gradient of the inputs, where it was kept apart."""
    apart()
    F = job.features
    for n in range(job.batch * job.time):
        if peek8(job.mask + n):
            add(job.d_x + 4 * F * n, job.d_x_second + 4 * F * n, F)


@njit
def split(job, threads, weight_bytes):
    """How many groups of rows, and how many parts: see kernel.py."""
    B, D = job.batch, job.directions
    # Two a thread even out what else the machine does, but each walks over the weights at every step.
    groups = threads * (2 if weight_bytes < 1 << 20 else 1)
    if D == 2 and B < MANY_ROWS * groups:
        # One direction's weights and more rows for each thread; two threads then write to one d_x.
        groups = min((groups + 1) // 2, (B + MANY_ROWS - 1) // MANY_ROWS)
        job.groups = max(1, min(max(groups, (threads + 1) // 2), B // TILE_ROWS))
        job.parts = 2 * job.groups
    else:
        job.groups = max(1, min(groups, (B + TILE_ROWS - 1) // TILE_ROWS))
        job.parts = job.groups


@njit
def plan(job):
    """Deals the rows out to the groups, longest first, so that groups have equal work."""
    apart()
    B, T, P = job.batch, job.time, job.groups
    lengths = allocate(8 * (B + T + 2))
    firsts = lengths + 8 * B
    for t in range(T + 2):
        poke(firsts + 8 * t, 0)
    for b in range(B):
        n = i64(0)
        for t in range(T):
            n += peek8(job.mask + b * T + t) != 0
        poke(lengths + 8 * b, n)
        poke(firsts + 8 * (T - n + 1), peek(firsts + 8 * (T - n + 1)) + 1)
    for t in range(1, T + 2):
        poke(firsts + 8 * t, peek(firsts + 8 * t) + peek(firsts + 8 * (t - 1)))
    most = (B + P - 1) // P
    for p in range(P):
        poke(job.counts + 8 * p, 0)
        poke(job.group_size + 8 * p, 0)
        poke(job.group_start + 8 * p, p * most)
    for b in range(B):
        n = peek(lengths + 8 * b)
        rank = atomic_add(firsts + 8 * (T - n), 1)
        p = rank % P
        if rank // P % 2 == 1:
            p = P - 1 - p
        poke(job.rows + 8 * (p * most + rank // P), b)
        atomic_add(job.counts + 8 * p, n)
        atomic_add(job.group_size + 8 * p, 1)
    free(lengths)


@njit
def release(address):
    """The last to leave frees the job."""
    if atomic_add(address + HOLDERS, -1) == 1:
        free(address)


@library_function(1)
def bahdanau_work(address):
    """Runs parts until none is left."""
    job = job_at(address)
    while True:
        part = atomic_add(address + NEXT, 1)
        if part >= job.parts:
            break
        if job.backward:
            bahdanau_backward_part(address, part)
        else:
            bahdanau_forward_part(address, part)
        atomic_add(address + DONE, 1)
    release(address)
    return 0


work_address = symbol_address("bahdanau_work")


@njit
def api_call(frame, function, a, b, size):
    """Calls XLA's interface function at offset `function` with {size, 0, a, b}; True where it succeeds."""
    block = allocate(i64(32))
    poke(block, size)
    poke(block + 8, 0)
    poke(block + 16, a)
    poke(block + 24, b)
    if size == 40:
        poke(block + 24, work_address())
        poke(block + 32, b)
    error = call(peek(peek(frame + API) + function), block)
    if error:
        poke(block, 24)
        poke(block + 16, error)
        call(peek(peek(frame + API) + ERROR_DESTROY), block)
    free(block)
    return error == 0


@njit
def addresses(buffers, first, count, to):
    """Copies where the data of some XLA_FFI_Buffers lies."""
    for n in range(count):
        poke(to + 8 * n, peek(peek(buffers + 8 * (first + n)) + BUFFER_DATA))


@njit
def attribute(frame, n):
    """The int64 attribute number n, in the order of their names."""
    return peek(peek(peek(peek(frame + ATTRIBUTES) + 8 * n) + 8))


@njit
def huge_pages(address, size):
    """Asks for huge pages under a large fresh buffer: touching it by 4 KB costs half as much as the work."""
    if LINUX and size >= 1 << 22:
        start = (address + 4095) // 4096 * 4096
        madvise(start, (address + size - start) // 4096 * 4096, types.int32(14))


@compiled(1)
def handle(frame):
    extension = peek(frame + EXTENSION)
    if extension and peek32(extension + 8) == 1:  # XLA asks which version of the interface we speak
        metadata = peek(extension + 24)
        poke32(
            metadata + 24, types.int32(0)
        )  # major; within a major version fields keep their places
        poke32(metadata + 28, peek32(peek(frame + API) + API_MINOR))
        poke32(metadata + 32, types.int32(0))  # no traits
        return 0
    if peek32(frame + STAGE) != EXECUTE:
        return 0
    arguments, results = peek(frame + ARGUMENTS), peek(frame + RESULTS)
    address = allocate(JOB_BYTES)
    job = job_at(address)
    job.next = job.done = 0
    job.backward, job.reverse = attribute(frame, i64(0)), attribute(frame, i64(1))
    x_dims = peek(peek(arguments) + BUFFER_DIMS)
    u_dims = peek(peek(arguments + 8 * 4) + BUFFER_DIMS)
    B, T, F = peek(x_dims), peek(x_dims + 8), peek(x_dims + 16)
    D, H = peek(u_dims), peek(u_dims + 8)
    HP = (H + LANES - 1) // LANES * LANES
    job.batch, job.time, job.features, job.directions, job.hidden, job.padded = B, T, F, D, H, HP
    addresses(arguments, i64(0), i64(5), address + X)
    if peek(peek(peek(arguments + 8 * 2) + BUFFER_DIMS)) == 0:
        job.scale = 0
    if job.backward:
        addresses(arguments, i64(5), i64(4), address + RECORDS)
        addresses(results, i64(0), i64(6), address + D_X)
        huge_pages(job.d_x, 4 * B * T * F)
    else:
        addresses(arguments, i64(5), i64(3), address + BIAS)
        addresses(results, i64(0), i64(3), address + OUT)
        huge_pages(job.out, 4 * B * T * D * H)
        job.save = peek(frame + RESULT_COUNT) > 3
        if job.save:
            addresses(results, i64(3), i64(1), address + RECORDS)
            huge_pages(job.records, 24 * D * B * T * HP)

    count = allocate(i64(8))
    threads = (
        peek(count) if api_call(frame, POOL_SIZE, peek(frame + CONTEXT), count, i64(32)) else i64(1)
    )
    free(count)
    weight_bytes = (F + H + 1) * 16 * HP
    split(job, threads, weight_bytes)
    P = job.groups
    job.counts = allocate(8 * (3 * P + B + P))
    job.group_size = job.counts + 8 * P
    job.group_start = job.group_size + 8 * P
    job.rows = job.group_start + 8 * P
    plan(job)
    if job.backward:
        job.d_x_second = 0
        if job.parts > job.groups:
            job.d_x_second = allocate(4 * B * T * F)
            huge_pages(job.d_x_second, 4 * B * T * F)
        columns = (F + PANEL - 1) // PANEL + (H + PANEL - 1) // PANEL
        job.packed = job.packed_t = allocate(D * columns * 4 * HP * ROW_BYTES)
        job.gradients = allocate(P * D * weight_bytes)
        pack_transposed(job)
    else:
        job.packed = allocate(D * weight_bytes)
        job.packed_bias = job.packed + D * (F + H) * 16 * HP
        pack(job)

    helpers = min(threads, job.parts) - 1
    job.holders = helpers + 2  # they, the call of work() below, and this function
    for _ in range(helpers):
        if not api_call(frame, POOL_SCHEDULE, peek(frame + CONTEXT), address, i64(40)):
            release(address)
    bahdanau_work(address)
    while atomic_add(address + DONE, 0) < job.parts:
        usleep(types.uint32(20))  # a helper is still at its last part
    if job.backward:
        sum_gradients(job)
        free(job.gradients)
        if job.d_x_second:
            sum_inputs(job)
            free(job.d_x_second)
    free(job.packed)
    free(job.counts)
    release(address)
    return 0
