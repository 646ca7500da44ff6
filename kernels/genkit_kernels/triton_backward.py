"""Gradients of attention in Triton, by recomputation: O(N) memory, no atomics, equal bits each run.

FlashAttention-2's backward (arXiv 2307.08691, algorithm 2) as two kernels: dq of a tile of queries
over its key blocks, then dk and dv of a tile of keys over the query blocks that see it; so seven
products of matrices instead of five. Checked through Triton's interpreter, and compiled for GPUs;
never run or timed on one.
"""

# Kernels are Triton's language, whose types are not Python's.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from genkit_kernels.triton_tiles import (
    LOG2_E,
    give,
    numbers_at,
    own_tile,
    take,
    tokens_at,
    tuned,
)

QUERIES = (
    (64, 2, 128, 64, 8, 3), (64, 2, 64, 64, 4, 3), (64, 2, 128, 32, 4, 3),
    (128, 2, 128, 64, 8, 2), (128, 2, 64, 64, 4, 2), (128, 2, 64, 32, 4, 2),
    (256, 2, 64, 32, 8, 2), (256, 2, 32, 32, 4, 2),
    (64, 4, 32, 32, 4, 2), (128, 4, 32, 16, 4, 2), (256, 4, 16, 16, 4, 2),
)  # fmt: skip
KEYS = (
    (64, 2, 64, 128, 8, 3), (64, 2, 64, 64, 4, 3), (64, 2, 32, 128, 4, 3),
    (128, 2, 64, 128, 8, 2), (128, 2, 32, 64, 4, 2), (128, 2, 64, 64, 8, 2),
    (256, 2, 32, 64, 8, 2), (256, 2, 32, 32, 4, 2),
    (64, 4, 32, 32, 4, 2), (128, 4, 16, 32, 4, 2), (256, 4, 16, 16, 4, 2),
)  # fmt: skip


@tuned(QUERIES)
@triton.jit
def queries_kernel(
    d_o, q, k, v, o, dq, lse, delta, lists, heads, tokens, scale,
    SIZE: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, BYTES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dq of one tile of queries, and its delta = rowsum(dO * O)."""
    b, h, block, query = own_tile(lists, heads, SIZE, BLOCK_M)
    if tl.max(query, 0) < 0:
        return
    rows = take(q, b, h, query, DIM, D)
    d_rows = take(d_o, b, h, query, DIM, D)
    drop = tl.sum(take(o, b, h, query, DIM, D).to(tl.float32) * d_rows.to(tl.float32), 1)
    here = query >= 0
    tl.store(numbers_at(delta, b, h, heads, tokens, query), drop, mask=here)
    top = tl.load(numbers_at(lse, b, h, heads, tokens, query), mask=here, other=float("inf"))
    out = tl.zeros((BLOCK_M, D), tl.float32)
    parts: tl.constexpr = (SIZE + BLOCK_N - 1) // BLOCK_N
    begin, end = tl.load(lists[2] + block), tl.load(lists[2] + block + 1)
    for i in range(begin * parts, end * parts):
        key = tokens_at(lists, b, tl.load(lists[3] + i // parts), i % parts, SIZE, BLOCK_N)
        keys, values = take(k, b, h, key, DIM, D), take(v, b, h, key, DIM, D)
        s = tl.dot(rows, tl.trans(keys), input_precision="ieee")
        p = tl.exp2((s * scale - top[:, None]) * LOG2_E)
        dp = tl.dot(d_rows, tl.trans(values), input_precision="ieee")
        # Padding counts for nothing, even where 2^-lse overflows.
        ds = tl.where((key >= 0)[None, :], p * (dp - drop[:, None]), 0.0)
        out = tl.dot(ds.to(keys.dtype), keys, out, input_precision="ieee")
    give(dq, b, h, query, out * scale, DIM, D)


@tuned(KEYS)
@triton.jit
def keys_kernel(
    d_o, q, k, v, dk, dv, lse, delta, lists, heads, tokens, scale,
    SIZE: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, BYTES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dk and dv of one tile of keys; lists are those of the queries that see each key block."""
    b, h, block, key = own_tile(lists, heads, SIZE, BLOCK_N)
    if tl.max(key, 0) < 0:
        return
    keys, values = take(k, b, h, key, DIM, D), take(v, b, h, key, DIM, D)
    d_keys, d_values = tl.zeros((BLOCK_N, D), tl.float32), tl.zeros((BLOCK_N, D), tl.float32)
    parts: tl.constexpr = (SIZE + BLOCK_M - 1) // BLOCK_M
    begin, end = tl.load(lists[2] + block), tl.load(lists[2] + block + 1)
    for i in range(begin * parts, end * parts):
        query = tokens_at(lists, b, tl.load(lists[3] + i // parts), i % parts, SIZE, BLOCK_M)
        here = query >= 0
        top = tl.load(numbers_at(lse, b, h, heads, tokens, query), mask=here, other=float("inf"))
        drop = tl.load(numbers_at(delta, b, h, heads, tokens, query), mask=here, other=0.0)
        rows, d_rows = take(q, b, h, query, DIM, D), take(d_o, b, h, query, DIM, D)
        # Transposed, keys as rows: padded queries have an infinite log-sum-exp, so p = 0.
        s = tl.dot(keys, tl.trans(rows), input_precision="ieee")
        p = tl.exp2((s * scale - top[None, :]) * LOG2_E)
        d_values = tl.dot(p.to(d_rows.dtype), d_rows, d_values, input_precision="ieee")
        dp = tl.dot(values, tl.trans(d_rows), input_precision="ieee")
        ds = p * (dp - drop[None, :])
        d_keys = tl.dot(ds.to(rows.dtype), rows, d_keys, input_precision="ieee")
    give(dk, b, h, key, d_keys * scale, DIM, D)
    give(dv, b, h, key, d_values, DIM, D)
