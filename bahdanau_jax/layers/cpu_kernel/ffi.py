"""The kernel as a C function that XLA calls directly, without Python.

XLA passes an XLA_FFI_CallFrame (jaxlib/include/xla/ffi/api/c_api.h, version 0.x), whose fields are read by
offset. The calling thread and the free threads of XLA's pool run the parts of a call: each takes the next
part until none is left. So a call finishes even if the pool is busy or has a single thread.
"""

import sys

import numpy as np

from bahdanau_jax.layers.cpu_kernel.attention import bahdanau_attention_part, pack_keys
from bahdanau_jax.layers.cpu_kernel.backward import bahdanau_backward_part
from bahdanau_jax.layers.cpu_kernel.build import (
    compiled,
    free,
    getpagesize,
    i64,
    library_function,
    madvise,
    njit,
    types,
    usleep,
)
from bahdanau_jax.layers.cpu_kernel.forward import bahdanau_forward_part
from bahdanau_jax.layers.cpu_kernel.job import (
    ATTENTION,
    BACKWARD,
    FIELDS,
    FORWARD,
    PACK,
    PACK_TRANSPOSED,
    PREDICT,
    SUM,
    job_at,
    panels_of,
    record_bytes,
)
from bahdanau_jax.layers.cpu_kernel.packing import (
    bahdanau_pack_part,
    bahdanau_pack_transposed_part,
    bahdanau_sum_part,
    blocks_of,
    pack_bias,
)
from bahdanau_jax.layers.cpu_kernel.plan import plan, split
from bahdanau_jax.layers.cpu_kernel.predict import bahdanau_predict_part
from bahdanau_jax.layers.cpu_kernel.simd import (
    LANES,
    PANEL,
    ROW_BYTES,
    atomic_add,
    call,
    peek,
    peek32,
    poke,
    poke32,
    symbol_address,
)
from bahdanau_jax.layers.cpu_kernel.vectors import allocate, copy

# Offsets in XLA_FFI_CallFrame
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
# in XLA_FFI_Buffer, XLA_FFI_Api and Job
BUFFER_DATA, BUFFER_DIMS = 24, 40
API_MINOR, ERROR_DESTROY, POOL_SCHEDULE, POOL_SIZE = 36, np.int64(64), np.int64(136), np.int64(144)
NEXT, DONE, HOLDERS, X, W, BIAS, QUERY, RECORDS, OUT, D_X = (
    8 * FIELDS.index(name)
    for name in ("next", "done", "holders", "x", "w", "bias", "query", "records", "out", "d_x")
)
JOB_BYTES = np.int64(8 * len(FIELDS))
EXECUTE = 3
L2_BYTES = 1 << 20  # of a core, about: 256 KB to 2 MB
L3_BYTES = 1 << 24  # that a process gets, about
LINUX = sys.platform.startswith("linux")


@njit
def release(address):
    """Gives up one hold on the job. The last holder frees it."""
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
        if job.kind == FORWARD:
            bahdanau_forward_part(address, part)
        elif job.kind == BACKWARD:
            bahdanau_backward_part(address, part)
        elif job.kind == PREDICT:
            bahdanau_predict_part(address, part)
        elif job.kind == ATTENTION:
            bahdanau_attention_part(address, part)
        elif job.kind == PACK:
            bahdanau_pack_part(address, part)
        elif job.kind == PACK_TRANSPOSED:
            bahdanau_pack_transposed_part(address, part)
        else:
            bahdanau_sum_part(address, part)
        atomic_add(address + DONE, 1)
    release(address)
    return 0


work_address = symbol_address("bahdanau_work")


@njit
def api_call(frame, function, a, b, size):
    """Calls XLA's API function at offset `function` with {size, 0, a, b}; returns whether it succeeded."""
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
    """Copies the data addresses of `count` XLA_FFI_Buffers to `to`."""
    for n in range(count):
        poke(to + 8 * n, peek(peek(buffers + 8 * (first + n)) + BUFFER_DATA))


@njit
def attribute(frame, n):
    """The nth int64 attribute, in alphabetical order."""
    return peek(peek(peek(peek(frame + ATTRIBUTES) + 8 * n) + 8))


@njit
def huge_pages(address, size):
    """Asks for huge pages for a large new buffer. 4 KB page faults would cost half as much as the work."""
    if LINUX and size >= 1 << 22:
        page = i64(getpagesize())  # madvise takes whole pages: 4 KB on x86, up to 64 KB on arm64
        start = (address + page - 1) // page * page
        madvise(start, (address + size - start) // page * page, types.int32(14))


@njit
def is_a_call(frame):
    """Whether XLA wants the kernel to run. Tells our API version if XLA asks for that."""
    extension = peek(frame + EXTENSION)
    if extension and peek32(extension + 8) == 1:
        metadata = peek(extension + 24)
        # Within a major version, fields keep their offsets.
        poke32(metadata + 24, types.int32(0))
        poke32(metadata + 28, peek32(peek(frame + API) + API_MINOR))
        poke32(metadata + 32, types.int32(0))  # no traits
        return False
    return peek32(frame + STAGE) == EXECUTE


@njit
def threads_of(frame):
    """The number of threads that may run parts."""
    count = allocate(i64(8))
    found = api_call(frame, POOL_SIZE, peek(frame + CONTEXT), count, i64(32))
    threads = peek(count) if found else i64(1)
    free(count)
    return threads


@njit
def run_parts(frame, address, threads):
    """Runs all parts of the job on this thread and helpers. Keeps a hold on the job."""
    job = job_at(address)
    job.next = job.done = 0
    helpers = min(threads, job.parts) - 1
    job.holders = helpers + 2  # the helpers, bahdanau_work() below, and the caller
    for _ in range(helpers):
        if not api_call(frame, POOL_SCHEDULE, peek(frame + CONTEXT), address, i64(40)):
            release(address)
    bahdanau_work(address)
    while atomic_add(address + DONE, 0) < job.parts:
        usleep(types.uint32(20))  # a helper still runs its last part


@njit
def run_beside(frame, address, kind, parts, threads):
    """Runs parts of another kind on a copy of the job. A helper that comes late finds none left there."""
    beside = allocate(JOB_BYTES)
    copy(beside, address, JOB_BYTES // 4)
    job = job_at(beside)
    job.kind, job.parts = kind, parts
    run_parts(frame, beside, threads)
    release(beside)


@compiled(1)
def handle(frame):
    """Serves one XLA_FFI_CallFrame: plans the call, runs its parts and waits for the helpers."""
    if not is_a_call(frame):
        return 0
    arguments, results = peek(frame + ARGUMENTS), peek(frame + RESULTS)
    address = allocate(JOB_BYTES)
    job = job_at(address)
    job.bfloat16, job.int16 = attribute(frame, i64(0)), attribute(frame, i64(1))
    job.kind, job.lookup = attribute(frame, i64(2)), attribute(frame, i64(3))
    job.reverse, job.itemsize = attribute(frame, i64(4)), 2 if job.bfloat16 else 4
    x_dims = peek(peek(arguments) + BUFFER_DIMS)
    w_dims = peek(peek(arguments + 8 * 3) + BUFFER_DIMS)
    u_dims = peek(peek(arguments + 8 * 4) + BUFFER_DIMS)
    B, T, F = peek(x_dims), peek(x_dims + 8), peek(w_dims + 8)
    job.vocabulary = F
    if job.lookup:
        F = i64(0)
    D, H = peek(u_dims), peek(u_dims + 8)
    HP = (H + LANES - 1) // LANES * LANES
    job.batch, job.time, job.features, job.directions, job.hidden, job.padded = B, T, F, D, H, HP
    addresses(arguments, i64(0), i64(5), address + X)
    if peek(peek(peek(arguments + 8 * 2) + BUFFER_DIMS)) == 0:
        job.scale = 0
    if job.kind == BACKWARD:
        addresses(arguments, i64(5), i64(4), address + RECORDS)
        addresses(results, i64(0), i64(6), address + D_X)
        huge_pages(job.d_x, job.itemsize * B * T * F)
    else:
        addresses(arguments, i64(5), i64(3), address + BIAS)
        addresses(results, i64(0), i64(3), address + OUT)
        huge_pages(job.out, job.itemsize * B * T * D * H)
        job.save = peek(frame + RESULT_COUNT) > 3
        if job.save:
            addresses(results, i64(3), i64(1), address + RECORDS)
            huge_pages(job.records, record_bytes(job) * D * B * T)

    threads = threads_of(frame)
    weight_bytes = (F + H + 1) * 16 * HP
    job.large = weight_bytes > L2_BYTES
    # XLA's buffers begin at a multiple of 64; a store past the caches must.
    job.away = record_bytes(job) * D * B * T > L3_BYTES and job.records % 64 == 0
    split(job, threads, weight_bytes)
    packers = threads if job.large else i64(1)  # small weights are not worth waking a thread
    P = job.groups
    job.counts = allocate(8 * (3 * P + B + P))
    job.group_size = job.counts + 8 * P
    job.group_start = job.group_size + 8 * P
    job.rows = job.group_start + 8 * P
    plan(job)
    if job.kind == BACKWARD:
        job.d_x_second = 0
        if job.parts > job.groups:
            job.d_x_second = allocate(job.itemsize * B * T * F)
            huge_pages(job.d_x_second, job.itemsize * B * T * F)
        panels = D * (panels_of(F) + panels_of(H))
        job.packed = job.packed_t = allocate(panels * 4 * HP * ROW_BYTES)
        job.gradients = allocate(P * D * weight_bytes)
        run_beside(frame, address, PACK_TRANSPOSED, panels, packers)
    else:
        job.packed = allocate(D * (weight_bytes + 32 * HP))
        job.packed_bias = job.packed + D * (F + H) * 16 * HP
        job.column_scales = job.packed_bias + D * 16 * HP
        pack_bias(job)
        run_beside(frame, address, PACK, D * blocks_of(job), packers)

    run_parts(frame, address, threads)
    if job.kind == BACKWARD:
        texts = B if job.d_x_second else i64(0)
        run_beside(frame, address, SUM, D * blocks_of(job) + texts, packers)
        free(job.gradients)
        if job.d_x_second:
            free(job.d_x_second)
    free(job.packed)
    free(job.counts)
    release(address)
    return 0


@compiled(1)
def handle_attention(frame):
    """Serves one XLA_FFI_CallFrame of the attention; see attention.py."""
    if not is_a_call(frame):
        return 0
    arguments, results = peek(frame + ARGUMENTS), peek(frame + RESULTS)
    address = allocate(JOB_BYTES)
    job = job_at(address)
    x_dims = peek(peek(arguments) + BUFFER_DIMS)
    job.kind = ATTENTION
    job.parts, job.time, job.features = peek(x_dims), peek(x_dims + 8), peek(x_dims + 16)
    job.hidden = peek(peek(peek(arguments + 8 * 2) + BUFFER_DIMS) + 8)
    addresses(arguments, i64(0), i64(2), address + X)
    addresses(arguments, i64(2), i64(1), address + W)
    addresses(arguments, i64(3), i64(2), address + QUERY)
    addresses(results, i64(0), i64(2), address + OUT)
    job.packed = allocate((job.hidden + PANEL) * job.features * 4)
    pack_keys(job)
    run_parts(frame, address, threads_of(frame))
    free(job.packed)
    release(address)
    return 0
