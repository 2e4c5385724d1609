"""`Job` describes one call of the kernel. Every thread that works on the call reads it.

A call is split into parts, which any thread may run. A part is a group of batch rows, in one direction or
in both directions one after the other.
"""

import numba
import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from bahdanau_jax.layers.cpu_kernel.bfloat16 import narrow, widen
from bahdanau_jax.layers.cpu_kernel.build import i64, njit
from bahdanau_jax.layers.cpu_kernel.simd import (
    PANEL,
    apart,
    peek,
    peek8,
    poke,
    store,
    store_past_caches,
)
from bahdanau_jax.layers.cpu_kernel.vectors import (
    copy,
    multiply,
    send_for,
)

FIELDS = """next done holders parts kind groups
  batch time features hidden padded directions reverse save lookup vocabulary int16 bfloat16 itemsize large away
  x mask scale w u  bias h0 c0  query scorer  records d_out d_h d_c
  out h c  d_x d_w d_u d_bias d_h0 d_c0
  packed packed_t packed_bias column_scales gradients d_x_second counts group_size group_start rows""".split()
# `large`: whether the weights do not fit into a core's L2 cache. Then products prefetch them, their gradients
# are formed from more steps at once, and all threads share in packing them and in summing their gradients.
# `away`: whether records are stored past the caches, which pays where they do not fit into the L3 cache.
# Kinds of jobs:
FORWARD, BACKWARD, PREDICT, ATTENTION, PACK, PACK_TRANSPOSED, SUM = (np.int64(n) for n in range(7))
# Of 4 bytes, or of itemsize 2 with bfloat16: x, w, u and out, and the gradients of these. Others have 4.
JOB = np.dtype([(name, np.int64) for name in FIELDS])
Job = numba.from_dtype(JOB)


@intrinsic
def _job_pointer(typingctx, address):
    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(Job)(i64), codegen


@njit
def job_at(address):
    """The job at an address; its fields can be read and assigned."""
    return carray(_job_pointer(address), (1,))[0]


@njit
def active_rows(job, group, t, active):
    """Writes the numbers of the group's rows that are real at step t to `active`; returns their count."""
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
    """Copies one row of x, scaled for direction d, and prefetches the row of step t + ahead."""
    apart()
    row_bytes = job.itemsize * job.features
    at = job.x + row_bytes * (batch_row * job.time + t)
    send_for(at + row_bytes * ahead, row_bytes)
    if job.bfloat16:
        widen(to, at, job.features)
        at = to
    if job.scale:
        factor = job.scale + 4 * job.features * (d * job.batch + batch_row)
        multiply(to, at, factor, job.features)
    elif not job.bfloat16:
        copy(to, at, job.features)


@njit
def write(job, to, source, n):
    """Copies n float32 to an array of the caller, rounded to its dtype."""
    if job.bfloat16:
        narrow(to, source, n)
    else:
        copy(to, source, n)


@njit
def panel_rows(job, n):
    """The number of rows that n factors take in a panel of weights: two bfloat16 share one."""
    return (n + job.bfloat16) >> job.bfloat16


@njit
def panels_of(size):
    """The number of panels that `size` columns of transposed weights fill."""
    return (size + PANEL - 1) // PANEL


@njit
def record_bytes(job):
    """The size of a record: [4 gates, old cell, old output] * padded, and room that keeps records apart.

    Without it the old outputs of many records would share few sets of the L1 cache.
    """
    return 24 * job.padded + 64


@njit
def record(job, at, value):
    """Stores a part of a record."""
    if job.away:
        store_past_caches(at, value)
    else:
        store(at, value)


@njit
def record_start(job, d, group):
    """Address of the group's records of direction d."""
    before = i64(0)
    for g in range(group):
        before += peek(job.counts + 8 * g)
    return job.records + record_bytes(job) * (d * job.batch * job.time + before)


@njit
def directions_of(job, part):
    """The first direction of a part, and the direction after its last."""
    if job.parts == job.groups:
        return i64(0), job.directions
    return part // job.groups, part // job.groups + 1
