"""What the public functions accept; else one ValueError with the argument and the shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from genkit_kernels.layout import GroupLayout
from genkit_kernels.region import Region, full

if TYPE_CHECKING:
    from torch import Tensor


def like_q(q: Tensor, others: dict[str, Tensor]) -> None:
    """q is 4-D and real, and the others have its shape, dtype and device."""
    if q.ndim != 4 or not q.is_floating_point():
        raise ValueError(f"q is {q.dtype} of shape {tuple(q.shape)}; give real numbers in 4 dims")
    for name, x in others.items():
        if x.shape != q.shape:
            raise ValueError(
                f"{name} is {tuple(x.shape)} but q is {tuple(q.shape)}; give the same batch, "
                "heads, tokens and head dim (repeat shared key heads first)"
            )
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(
                f"{name} is {x.dtype} on {x.device} but q is {q.dtype} on {q.device} "
                f"(shapes {tuple(x.shape)}); give one dtype and device"
            )


def positive_scale(q: Tensor, scale: float | None) -> float:
    """The scale, or 1 / sqrt(head dim)."""
    if scale is None:
        return q.shape[-1] ** -0.5
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale is {scale} for q {tuple(q.shape)}; give a positive number")
    return float(scale)


def grouped(q: Tensor, k: Tensor, v: Tensor, layout: GroupLayout, scale: float | None) -> float:
    """Check q, k, v (batch, tokens, heads, head dim) against the layout; the scale to use."""
    like_q(q, {"k": k, "v": v})
    if q.shape[1] != layout.tokens:
        raise ValueError(
            f"q is {tuple(q.shape)}, {q.shape[1]} tokens, but the layout's grid {layout.grid} and "
            f"text_len {layout.text_len} make {layout.tokens}"
        )
    return positive_scale(q, scale)


def block_sparse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    blocks: Tensor,
    block_size: int,
    lens: Tensor | None,
    scale: float | None,
) -> tuple[float, Tensor]:
    """Check clustered q, k, v (batch, heads, slots, head dim); the scale and lens to use."""
    like_q(q, {"k": k, "v": v})
    if block_size < 1 or q.shape[2] % block_size:
        raise ValueError(f"block_size {block_size} does not divide q {tuple(q.shape)} at dim 2")
    n = q.shape[2] // block_size
    lists(offsets, blocks, n)
    if lens is None:
        return positive_scale(q, scale), torch.full((len(q), n), block_size)
    if lens.shape not in ((n,), (len(q), n)) or lens.is_floating_point():
        raise ValueError(
            f"lens is {lens.dtype} of shape {tuple(lens.shape)}; give whole numbers ({n},) or "
            f"({len(q)}, {n}) for q {tuple(q.shape)} in blocks of {block_size}"
        )
    lens = lens.to("cpu", torch.int64).expand(len(q), n).contiguous()
    if lens.numel() and (lens.min() < 0 or lens.max() > block_size):
        raise ValueError(
            f"lens goes from {int(lens.min())} to {int(lens.max())}; each counts valid slots of a "
            f"block, 0 to block_size {block_size}"
        )
    sees_keys(offsets, blocks, lens)
    return positive_scale(q, scale), lens


def lists(offsets: Tensor, blocks: Tensor, n: int) -> None:
    """offsets (n + 1,) and blocks (nnz,) describe n rows of block ids, none of them empty."""
    if offsets.shape != (n + 1,) or offsets.dtype != torch.int64:
        raise ValueError(
            f"offsets is {offsets.dtype} of shape {tuple(offsets.shape)}; give int64 ({n + 1},)"
        )
    if blocks.ndim != 1 or blocks.dtype != torch.int64:
        raise ValueError(f"blocks is {blocks.dtype} of shape {tuple(blocks.shape)}; give int64 1-D")
    if offsets[0] != 0 or offsets[-1] != blocks.numel():
        raise ValueError(
            f"offsets goes from {int(offsets[0])} to {int(offsets[-1])}; "
            f"it must go from 0 to the length of blocks, {blocks.numel()}"
        )
    empty = (offsets.diff() < 1).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"offsets leaves query block {empty[0]} of {n} without keys")
    if blocks.min() < 0 or blocks.max() >= n:
        raise ValueError(
            f"blocks goes from {int(blocks.min())} to {int(blocks.max())}; ids are 0 to {n - 1}"
        )
    rows = torch.arange(n, device=blocks.device).repeat_interleave(offsets.diff())
    if (rows * n + blocks).unique().numel() < blocks.numel():
        raise ValueError(
            f"blocks {tuple(blocks.shape)} names a block twice for one query block; once is enough"
        )


def sees_keys(offsets: Tensor, blocks: Tensor, lens: Tensor) -> None:
    """Every valid query has a valid key in one of its blocks."""
    offsets, blocks = offsets.cpu(), blocks.cpu()
    ends = torch.cat([lens.new_zeros(len(lens), 1), lens[:, blocks].cumsum(1)], 1)
    keys = ends[:, offsets[1:]] - ends[:, offsets[:-1]]
    alone = ((keys == 0) & (lens > 0)).nonzero().tolist()
    if alone:
        row, block = alone[0]
        raise ValueError(
            f"lens {tuple(lens.shape)} leaves the queries of block {block} in row {row} without "
            "keys: all blocks they see have length 0"
        )


def jvp(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tq: Tensor,
    tk: Tensor,
    tv: Tensor,
    layout: GroupLayout | None,
    region: Region | None,
    key_lens: Tensor | None,
) -> tuple[GroupLayout, Region]:
    """Check tokens and tangents; dense attention becomes a layout of one row and `full()`."""
    like_q(q, {"k": k, "v": v, "tq": tq, "tk": tk, "tv": tv})
    if (layout is None) != (region is None):
        raise ValueError(
            f"layout is {layout} and region is {region}; give both, or neither for dense attention"
        )
    if layout is not None and region is not None:
        return layout, region
    if key_lens is not None:
        raise ValueError(f"key_lens {tuple(key_lens.shape)} needs a layout that says what is text")
    return dense_layout(q.shape[1]), full()


def dense_layout(tokens: int) -> GroupLayout:
    """All tokens as one row, in blocks of 256."""
    return GroupLayout((1, tokens), (1, min(tokens, 256)))
