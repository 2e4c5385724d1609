"""Additive attention with one query for each row of a batch. It reads real positions only.

A part of a call is one row: its keys, which are also its values, stay in the L2 cache from the scores to the
weighted sum.
"""

from bahdanau_jax.layers.cpu_kernel.build import f32, free, i64, library_function, njit
from bahdanau_jax.layers.cpu_kernel.job import job_at
from bahdanau_jax.layers.cpu_kernel.product import bahdanau_product
from bahdanau_jax.layers.cpu_kernel.simd import (
    LANES,
    PANEL,
    ROW_BYTES,
    TILE_ROWS,
    apart,
    fma,
    load,
    loadf,
    peek,
    peek8,
    poke,
    splat,
    store,
    storef,
)
from bahdanau_jax.layers.cpu_kernel.vectors import allocate, copy, exp, tanh, zero

BLOCK = 8 * TILE_ROWS  # positions whose keys stay in the L1 cache


@njit
def pack_keys(job):
    """Writes the keys' kernel in panels, each of PANEL columns, the last one filled up with zeros."""
    apart()
    F, U = job.features, job.hidden
    for u in range(0, U, PANEL):
        for k in range(F):
            to = job.packed + 4 * (u * F + k * PANEL)
            zero(to, PANEL)
            copy(to, job.w + 4 * (k * U + u), min(PANEL, U - u))


@njit
def score(job, n, keys, query, acc, scores):
    """Writes v . tanh(key @ W1 + query) of n keys, whose addresses are in `keys`."""
    apart()
    F, U = job.features, job.hidden
    UP = (U + PANEL - 1) // PANEL * PANEL
    zero(scores, n)
    for u in range(0, U, PANEL):
        for i in range(n):
            copy(acc + i * ROW_BYTES, query + 4 * u, PANEL)
        bahdanau_product(n, acc, ROW_BYTES, keys, job.packed + 4 * u * F, ROW_BYTES, F, i64(0))
        for i in range(n):
            total = splat(f32(0.0))
            for v in range(0, PANEL, LANES):
                v_u = load(query + 4 * (UP + u + v))
                total = fma(tanh(load(acc + i * ROW_BYTES + 4 * v)), v_u, total)
            store(acc + n * ROW_BYTES, total)
            sum_of_lanes = loadf(scores + 4 * i)
            for v in range(LANES):
                sum_of_lanes += loadf(acc + n * ROW_BYTES + 4 * v)
            storef(scores + 4 * i, sum_of_lanes)


@njit
def softmax(scores, n):
    """Replaces n scores by their softmax. May write to LANES floats behind them."""
    apart()
    top = f32(-3e38)
    for i in range(n):
        top = max(top, loadf(scores + 4 * i))
    total = f32(0.0)
    for i in range(0, n, LANES):
        store(scores + 4 * i, exp(load(scores + 4 * i) - splat(top), 1.0, 126.0))
    for i in range(n):
        total += loadf(scores + 4 * i)
    for i in range(0, n, LANES):
        store(scores + 4 * i, load(scores + 4 * i) / splat(total))


@njit
def context(out, weights, values, n, size):
    """out[:size] += sum over n of weights[i] * value i. out is zero before."""
    apart()
    whole = size // PANEL * PANEL
    for i in range(n):
        weight, value = splat(loadf(weights + 4 * i)), peek(values + 8 * i)
        for k in range(0, whole, LANES):
            store(out + 4 * k, fma(weight, load(value + 4 * k), load(out + 4 * k)))
        for k in range(whole, size):
            storef(out + 4 * k, loadf(out + 4 * k) + loadf(weights + 4 * i) * loadf(value + 4 * k))


@library_function(2)
def bahdanau_attention_part(address, b):
    """Writes the weights and the context of row b."""
    job = job_at(address)
    T, F, U = job.time, job.features, job.hidden
    UP = (U + PANEL - 1) // PANEL * PANEL
    scratch = allocate(8 * T + 4 * (2 * UP + T + LANES + F + PANEL) + (BLOCK + 1) * ROW_BYTES)
    table = scratch
    query = table + 8 * T
    scorer = query + 4 * UP
    acc = scorer + 4 * UP
    scores = acc + (BLOCK + 1) * ROW_BYTES
    zero(query, 2 * UP)
    copy(query, job.query + 4 * U * b, U)
    copy(scorer, job.scorer, U)
    n = i64(0)
    for t in range(T):
        if peek8(job.mask + b * T + t):
            poke(table + 8 * n, job.x + 4 * F * (b * T + t))
            n += 1
    for start in range(0, n, BLOCK):
        score(job, min(BLOCK, n - start), table + 8 * start, query, acc, scores + 4 * start)
    softmax(scores, n)
    out, weights = job.out + 4 * F * b, job.h + 4 * T * b
    zero(out, F)
    i = i64(0)
    for t in range(T):
        storef(weights + 4 * t, f32(0.0))
        if peek8(job.mask + b * T + t):
            storef(weights + 4 * t, loadf(scores + 4 * i))
            i += 1
    context(out, scores, table, n, F)
    free(scratch)
    return 0
