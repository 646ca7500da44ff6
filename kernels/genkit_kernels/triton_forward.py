"""Attention and its log-sum-exp in Triton: a tile of queries walks its list of key blocks.

FlashAttention-2's forward (arXiv 2307.08691, algorithm 1), the running maximum in base 2. Checked
through Triton's interpreter, and compiled for GPUs; never run or timed on one.
"""

# Kernels are Triton's language, whose types are not Python's.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from genkit_kernels.triton_tiles import (
    LN_2,
    LOG2_E,
    give,
    numbers_at,
    own_tile,
    take,
    tokens_at,
    tuned,
)

TABLE = (
    (64, 2, 128, 64, 4, 3), (64, 2, 128, 128, 8, 3), (64, 2, 64, 64, 4, 3),
    (128, 2, 128, 64, 8, 3), (128, 2, 128, 32, 4, 3), (128, 2, 64, 64, 4, 2),
    (256, 2, 128, 64, 8, 2), (256, 2, 64, 32, 4, 2),
    (64, 4, 64, 32, 4, 2), (64, 4, 32, 32, 4, 2),
    (128, 4, 32, 32, 4, 2), (256, 4, 16, 32, 4, 2),
)  # fmt: skip


@tuned(TABLE)
@triton.jit
def forward_kernel(
    q, k, v, o, lse, lists, heads, tokens, scale,
    SIZE: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, BYTES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """o and lse of one tile of queries."""
    b, h, block, query = own_tile(lists, heads, SIZE, BLOCK_M)
    if tl.max(query, 0) < 0:
        return
    rows = take(q, b, h, query, DIM, D)
    top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    out = tl.zeros((BLOCK_M, D), tl.float32)
    parts: tl.constexpr = (SIZE + BLOCK_N - 1) // BLOCK_N
    begin, end = tl.load(lists[2] + block), tl.load(lists[2] + block + 1)
    for i in range(begin * parts, end * parts):
        key = tokens_at(lists, b, tl.load(lists[3] + i // parts), i % parts, SIZE, BLOCK_N)
        s = tl.dot(rows, tl.trans(take(k, b, h, key, DIM, D)), input_precision="ieee")
        s = tl.where((key >= 0)[None, :], s * (scale * LOG2_E), -float("inf"))
        p, top, fade = weigh(s, top)
        total = total * fade + tl.sum(p, 1)
        values = take(v, b, h, key, DIM, D)
        out = tl.dot(p.to(values.dtype), values, out * fade[:, None], input_precision="ieee")
    give(o, b, h, query, out / total[:, None], DIM, D)
    at = numbers_at(lse, b, h, heads, tokens, query)
    tl.store(at, (top + tl.log2(total)) * LN_2, mask=query >= 0)


@triton.jit
def weigh(s, top):
    """2^(s - the new maximum), that maximum, and the factor on what was summed so far."""
    now = tl.maximum(top, tl.max(s, 1))
    # Rows that have met no key yet: -inf - -inf would be NaN.
    safe = tl.where(now == -float("inf"), 0.0, now)
    return tl.exp2(s - safe[:, None]), now, tl.exp2(top - safe)
