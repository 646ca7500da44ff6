"""The slow truth: every public function again, with the same signature, by a dense mask.

Any dtype, so float64 too; autograd and torch.func work through it; memory grows with tokens^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genkit_kernels import checks
from genkit_kernels.layout import GroupLayout
from genkit_kernels.problem import wide
from genkit_kernels.region import BlockLists, Region, compile_region


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
    """As `ops.grouped_attention`."""
    scale = checks.grouped(q, k, v, layout, scale)
    mask = token_mask(layout, region, layout.lens(key_lens, len(q))).to(q.device)
    o, lse = masked_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask, scale)
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
    """As `ops.block_sparse_attention`."""
    scale, lens = checks.block_sparse(q, k, v, offsets, blocks, block_size, lens, scale)
    seen = BlockLists(offsets.cpu(), blocks.cpu()).dense()
    mask = slot_mask(seen, lens, block_size).to(q.device)
    o, lse = masked_attention(q, k, v, mask, scale)
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
    """As `ops.attention_jvp`: forward-mode AD through the dense mask."""
    layout, region = checks.jvp(q, k, v, tq, tk, tv, layout, region, key_lens)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o = grouped_attention(q, k, v, layout, region, key_lens, scale)
        assert isinstance(o, Tensor)
        return o

    both = torch.func.jvp(attend, (q, k, v), (tq, tk, tv))
    return both[0], both[1].detach()


def slot_mask(seen: Tensor, lens: Tensor, block_size: int) -> Tensor:
    """What sees what (batch, 1, slots, slots) from block pairs `seen`; padding sees nothing."""
    valid = (torch.arange(block_size) < lens[..., None]).flatten(1)
    pairs = seen.repeat_interleave(block_size, 0).repeat_interleave(block_size, 1)
    return (pairs & valid[:, :, None] & valid[:, None, :])[:, None]


def token_mask(layout: GroupLayout, region: Region, lens: Tensor) -> Tensor:
    """The same (batch, 1, tokens, tokens) in the tokens' own order."""
    mask = slot_mask(compile_region(region, layout).dense(), lens, layout.block_size)
    rows = layout.uncluster(mask[:, 0])
    return layout.uncluster(rows.transpose(1, 2)).transpose(1, 2)[:, None]


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """(o, lse) of q, k, v (b, h, n, d); rows that see nothing give o = 0, lse = -inf.

    NaN comes out in every row that sees it and in no other, which P @ V alone would not give.
    """
    accumulated = wide(q)
    s = (q.to(accumulated) @ k.to(accumulated).mT * scale).masked_fill(~mask, -torch.inf)
    blind = ~mask.any(-1)
    lse = s.masked_fill(blind[..., None], 0).logsumexp(-1).masked_fill(blind, -torch.inf)
    p = (s - lse.masked_fill(blind, 0)[..., None]).exp()
    broken = ~v.isfinite()
    o = p @ v.to(accumulated).masked_fill(broken, 0)
    sees_broken = mask.to(accumulated) @ broken.to(accumulated) > 0
    return o.masked_fill(sees_broken, torch.nan).to(q.dtype), lse.detach()
