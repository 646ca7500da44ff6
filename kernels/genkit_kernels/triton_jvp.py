"""The forward-mode derivative of attention in Triton, alone or in one pass with attention itself.

With S = scale q k', P = exp(S - lse) and tS the tangent of S (as in sCM, arXiv 2410.11081):
    tangent of o = P tv + (P * tS) v - rowsum(P * tS) o
five products of matrices beside forward's two, or six in one pass. Checked through Triton's
interpreter, and compiled for GPUs; never run or timed on one.
"""

# Kernels are Triton's language, whose types are not Python's.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from genkit_kernels.triton_forward import weigh
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
    (64, 2, 128, 64, 8, 3), (64, 2, 64, 64, 4, 3), (64, 2, 128, 32, 8, 3),
    (128, 2, 128, 32, 8, 2), (128, 2, 64, 64, 8, 2), (128, 2, 64, 32, 4, 2),
    (256, 2, 64, 32, 8, 2), (256, 2, 32, 32, 4, 2),
    (64, 4, 32, 32, 4, 2), (128, 4, 32, 16, 4, 2), (256, 4, 16, 16, 4, 2),
)  # fmt: skip


@tuned(TABLE)
@triton.jit
def tangent_kernel(
    q, k, v, o, tq, tk, tv, t_o, lse, lists, heads, tokens, scale, FUSED: tl.constexpr,
    SIZE: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, BYTES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """t_o of one tile of queries from o and lse, or all three where FUSED."""
    b, h, block, query = own_tile(lists, heads, SIZE, BLOCK_M)
    if tl.max(query, 0) < 0:
        return
    rows, t_rows = take(q, b, h, query, DIM, D), take(tq, b, h, query, DIM, D)
    at = numbers_at(lse, b, h, heads, tokens, query)
    if FUSED:
        top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        out = tl.zeros((BLOCK_M, D), tl.float32)
    else:
        top = tl.load(at, mask=query >= 0, other=float("inf"))
    moved = tl.zeros((BLOCK_M,), tl.float32)
    change = tl.zeros((BLOCK_M, D), tl.float32)
    parts: tl.constexpr = (SIZE + BLOCK_N - 1) // BLOCK_N
    begin, end = tl.load(lists[2] + block), tl.load(lists[2] + block + 1)
    for i in range(begin * parts, end * parts):
        key = tokens_at(lists, b, tl.load(lists[3] + i // parts), i % parts, SIZE, BLOCK_N)
        seen = (key >= 0)[None, :]
        keys, values = take(k, b, h, key, DIM, D), take(v, b, h, key, DIM, D)
        t_keys, t_values = take(tk, b, h, key, DIM, D), take(tv, b, h, key, DIM, D)
        s = tl.dot(rows, tl.trans(keys), input_precision="ieee")
        ts = tl.dot(t_rows, tl.trans(keys), input_precision="ieee")
        ts = tl.dot(rows, tl.trans(t_keys), ts, input_precision="ieee") * scale
        if FUSED:
            p, top, fade = weigh(tl.where(seen, s * (scale * LOG2_E), -float("inf")), top)
            total = total * fade + tl.sum(p, 1)
            moved = moved * fade
            out, change = out * fade[:, None], change * fade[:, None]
            out = tl.dot(p.to(values.dtype), values, out, input_precision="ieee")
        else:
            p = tl.where(seen, tl.exp2((s * scale - top[:, None]) * LOG2_E), 0.0)
        w = p * ts
        moved += tl.sum(w, 1)
        change = tl.dot(p.to(values.dtype), t_values, change, input_precision="ieee")
        change = tl.dot(w.to(values.dtype), values, change, input_precision="ieee")
    if FUSED:
        out = out / total[:, None]
        give(o, b, h, query, out, DIM, D)
        tl.store(at, (top + tl.log2(total)) * LN_2, mask=query >= 0)
        change = (change - moved[:, None] * out) / total[:, None]
    else:
        change -= moved[:, None] * take(o, b, h, query, DIM, D).to(tl.float32)
    give(t_o, b, h, query, change, DIM, D)
