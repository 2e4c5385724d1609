"""Splits a layer's call into parts, and deals its rows out to them."""

from bahdanau_jax.layers.cpu_kernel.build import free, i64, njit
from bahdanau_jax.layers.cpu_kernel.simd import TILE_ROWS, apart, atomic_add, peek, peek8, poke
from bahdanau_jax.layers.cpu_kernel.vectors import allocate

MANY_ROWS = 32  # rows that make one pass over the weights worthwhile


@njit
def split(job, threads, weight_bytes):
    """Chooses the number of groups of rows and the number of parts; see job.py."""
    B, D = job.batch, job.directions
    # Two groups per thread even out other load on the machine, but each group reads all weights every step.
    groups = threads * (2 if weight_bytes < 1 << 20 else 1)
    if D == 2 and B < MANY_ROWS * groups:
        # Each thread gets one direction and more rows. Then two threads compute the same rows of d_x.
        groups = min((groups + 1) // 2, (B + MANY_ROWS - 1) // MANY_ROWS)
        job.groups = max(1, min(max(groups, (threads + 1) // 2), B // TILE_ROWS))
        job.parts = 2 * job.groups
    else:
        job.groups = max(1, min(groups, (B + TILE_ROWS - 1) // TILE_ROWS))
        job.parts = job.groups


@njit
def plan(job):
    """Deals the rows out to the groups, longest first, so that all groups have about equal work."""
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
