"""Sparse attention over groups of tokens: forward, backward and forward-mode derivative.

One signature, several implementations: `resolve` picks, `reference` holds the slow truth. Gradients
recompute the logits, so memory grows with tokens, not with their square.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genkit_kernels import checks, reference
from genkit_kernels.layout import GroupLayout
from genkit_kernels.region import Region, compile_region
from genkit_kernels.registered import Attend, AttendWithTangent
from genkit_kernels.resolve import resolve


def grouped_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: GroupLayout,
    region: Region,
    key_lens: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention in which each group of a grid sees only its `region`: o like q.

    q, k, v: (batch, tokens, heads, head dim), tokens in the grid's row-major order with the text
    before or after, as `layout` says. Text is seen by every query, and text queries see everything.
    key_lens: (batch,) valid text tokens of each row; the padding behind them is seen by nobody and
    comes out as 0. scale: factor on q k^T, 1 / sqrt(head dim) by default. return_lse: also
    log-sum-exp of the logits (batch, heads, tokens), without gradients, -inf for padding.

    ValueError names the argument where shapes, dtypes, devices, layout or key_lens do not fit.
    """
    scale = checks.grouped(q, k, v, layout, scale)
    lens = layout.lens(key_lens, len(q))
    name = resolve(q)
    if name == "reference":
        return reference.grouped_attention(q, k, v, layout, region, key_lens, scale, return_lse)
    lists = compile_region(region, layout)
    parts = (layout.order(), lens, lists.offsets, lists.blocks)
    o, lse = Attend.apply(*(x.transpose(1, 2) for x in (q, k, v)), parts, scale, name)
    return (o.transpose(1, 2), lse) if return_lse else o.transpose(1, 2)


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    blocks: Tensor,
    block_size: int,
    lens: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention in which a block of queries sees a list of key blocks: o like q.

    q, k, v: (batch, heads, slots, head dim), slots in blocks of `block_size`. Query block i sees
    `blocks[offsets[i] : offsets[i + 1]]`: offsets (n + 1,) and blocks (nnz,), int64, no id twice in
    a row. lens: valid slots at the beginning of each block, (n,) or (batch, n); the others see
    nothing, are seen by nobody, and come out as 0. scale, return_lse: as in `grouped_attention`.

    ValueError names the argument where shapes do not fit or a valid query is left without keys.
    """
    scale, lens = checks.block_sparse(q, k, v, offsets, blocks, block_size, lens, scale)
    name = resolve(q)
    if name == "reference":
        return reference.block_sparse_attention(
            q, k, v, offsets, blocks, block_size, lens, scale, return_lse
        )
    parts = (torch.arange(q.shape[2]), lens, offsets.cpu(), blocks.cpu())
    o, lse = Attend.apply(q, k, v, parts, scale, name)
    return (o, lse) if return_lse else o


def attention_jvp(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tq: Tensor,
    tk: Tensor,
    tv: Tensor,
    layout: GroupLayout | None = None,
    region: Region | None = None,
    key_lens: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(o, t_o): attention and its derivative along the tangents tq, tk, tv, in one pass.

    All tensors (batch, tokens, heads, head dim). layout and region as in `grouped_attention`;
    without them attention is dense. o has gradients in q, k and v; t_o has none (as in rCM, arXiv
    2510.08431, and sCM, arXiv 2410.11081, which use it as a constant).

    ValueError as in `grouped_attention`, and where a tangent does not have q's shape and dtype.
    """
    layout, region = checks.jvp(q, k, v, tq, tk, tv, layout, region, key_lens)
    scale = checks.grouped(q, k, v, layout, scale)
    lens = layout.lens(key_lens, len(q))
    name = resolve(q)
    if name == "reference":
        return reference.attention_jvp(q, k, v, tq, tk, tv, layout, region, key_lens, scale)
    lists = compile_region(region, layout)
    parts = (layout.order(), lens, lists.offsets, lists.blocks)
    primals, tangents = (tuple(x.transpose(1, 2) for x in xs) for xs in ((q, k, v), (tq, tk, tv)))
    o, t_o, _ = AttendWithTangent.apply(*primals, tangents, parts, scale, name)
    return o.transpose(1, 2), t_o.transpose(1, 2)
