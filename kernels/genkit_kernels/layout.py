"""Tokens of a grid in groups: the clustered order in which a group is one block of memory.

GRAT (arXiv 2505.14687) lets all queries of one spatial group share one set of keys. Here the groups
come in row-major order, each a block of `block_size` slots; the text's blocks follow, wherever the
text stands among the tokens. Groups cut by the grid's edge, and the last text block, are padded at
their end, so that what is valid in a block is always its first `sizes[block]` slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal

import torch
from torch import Tensor

Side = Literal["first", "last", "none"]


@dataclass(frozen=True)
class GroupLayout:
    """How `tokens` = prod(grid) + text_len tokens fall into groups.

    grid: (rows, columns) or (frames, rows, columns), row-major among the tokens. group: tokens of
    one group along each axis; where it does not divide the grid, the last groups are smaller.
    text_len: text tokens, padding counted. text_side: where they stand, before or after the grid's.
    """

    grid: tuple[int, ...]
    group: tuple[int, ...]
    text_len: int = 0
    text_side: Side = "last"

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))
        object.__setattr__(self, "group", tuple(self.group))
        if len(self.grid) not in (2, 3) or min(self.grid) < 1:
            raise ValueError(f"grid is {self.grid}; give two or three positive sizes")
        if len(self.group) != len(self.grid) or min(self.group) < 1:
            raise ValueError(
                f"group is {self.group}; give one positive size per axis of {self.grid}"
            )
        if any(g > n for g, n in zip(self.group, self.grid, strict=True)):
            raise ValueError(f"group {self.group} is larger than the grid {self.grid}")
        if self.text_side not in ("first", "last", "none"):
            raise ValueError(f"text_side is {self.text_side!r}; give 'first', 'last' or 'none'")
        if self.text_len < 0 or (self.text_side == "none" and self.text_len):
            raise ValueError(
                f"text_len is {self.text_len} with text_side {self.text_side!r}; "
                "give the number of text tokens and the side they stand on"
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Groups along each axis."""
        return tuple(-(-n // g) for n, g in zip(self.grid, self.group, strict=True))

    @property
    def block_size(self) -> int:
        """Slots of one block."""
        return prod(self.group)

    @property
    def image_blocks(self) -> int:
        """Blocks of the grid, one per group."""
        return prod(self.counts)

    @property
    def text_blocks(self) -> int:
        """Blocks of text, the last one padded."""
        return -(-self.text_len // self.block_size)

    @property
    def blocks(self) -> int:
        """All blocks: the grid's, then the text's."""
        return self.image_blocks + self.text_blocks

    @property
    def tokens(self) -> int:
        """Tokens outside: the grid's and the text's."""
        return prod(self.grid) + self.text_len

    @property
    def slots(self) -> int:
        """Tokens in clustered order, padding counted."""
        return self.blocks * self.block_size

    def order(self) -> Tensor:
        """The token of each slot (slots,), -1 where the slot is padding. Shared: do not write."""
        return _order(self)

    def sizes(self) -> Tensor:
        """Valid slots at the beginning of each block (blocks,). Shared: do not write."""
        return _sizes(self)

    def lens(self, key_lens: Tensor | None, batch: int) -> Tensor:
        """Valid slots of each block (batch, blocks), where row b has key_lens[b] text tokens.

        ValueError where key_lens is not `batch` whole numbers from 0 to text_len.
        """
        lens = self.sizes().expand(batch, -1)
        if key_lens is None:
            return lens
        if key_lens.shape != (batch,) or key_lens.is_floating_point():
            raise ValueError(
                f"key_lens is {key_lens.dtype} of shape {tuple(key_lens.shape)}; "
                f"give one whole number per row of the batch: ({batch},)"
            )
        text = key_lens.to("cpu", torch.int64)
        if batch and (text.min() < 0 or text.max() > self.text_len):
            raise ValueError(
                f"key_lens is {text.tolist()}; each counts valid text tokens, 0 to {self.text_len}"
            )
        begins = torch.arange(self.text_blocks) * self.block_size
        valid = (text[:, None] - begins).clamp(0, self.block_size)
        return torch.cat([lens[:, : self.image_blocks], valid], 1)

    def cluster(self, x: Tensor) -> Tensor:
        """x (batch, tokens, ...) in clustered order (batch, slots, ...), padding filled with 0."""
        if x.ndim < 2 or x.shape[1] != self.tokens:
            raise ValueError(f"x is {tuple(x.shape)}; {self} has {self.tokens} tokens at dim 1")
        if self.slots == self.tokens and not self.text_len:
            pairs = [n for pair in zip(self.counts, self.group, strict=True) for n in pair]
            return _swap(x.unflatten(1, pairs), len(pairs)).flatten(1, len(pairs))
        order = self.order().to(x.device)
        padding = (order < 0).view(-1, *[1] * (x.ndim - 2))
        return x[:, order.clamp(min=0)].masked_fill(padding, 0)

    def uncluster(self, x: Tensor) -> Tensor:
        """The inverse of `cluster`: (batch, slots, ...) to (batch, tokens, ...)."""
        if x.ndim < 2 or x.shape[1] != self.slots:
            raise ValueError(f"x is {tuple(x.shape)}; {self} has {self.slots} slots at dim 1")
        if self.slots == self.tokens and not self.text_len:
            sizes = [*self.counts, *self.group]
            return _join(x.unflatten(1, sizes), len(sizes)).flatten(1, len(sizes))
        return x[:, _slot_of_token(self).to(x.device)]


def _swap(x: Tensor, axes: int) -> Tensor:
    """(batch, count, group, count, group, ...) to (batch, counts..., groups..., ...)."""
    counts, groups = range(1, axes + 1, 2), range(2, axes + 1, 2)
    return x.permute(0, *counts, *groups, *range(axes + 1, x.ndim))


def _join(x: Tensor, axes: int) -> Tensor:
    """The inverse of `_swap`."""
    half = axes // 2
    pairs = [d for i in range(half) for d in (1 + i, 1 + half + i)]
    return x.permute(0, *pairs, *range(axes + 1, x.ndim))


@lru_cache(maxsize=64)
def _order(layout: GroupLayout) -> Tensor:
    places = torch.full([c * g for c, g in zip(layout.counts, layout.group, strict=True)], -1)
    image = prod(layout.grid)
    first = layout.text_len if layout.text_side == "first" else 0
    inside = tuple(slice(n) for n in layout.grid)
    places[inside] = torch.arange(first, first + image).view(layout.grid)
    pairs = [n for pair in zip(layout.counts, layout.group, strict=True) for n in pair]
    grid = _swap(places.view(1, *pairs), len(pairs)).reshape(layout.image_blocks, -1)
    # Valid slots first, in their own order.
    grid = grid.gather(1, (grid < 0).to(torch.int8).argsort(dim=1, stable=True))
    text = torch.full((layout.text_blocks * layout.block_size,), -1)
    begin = 0 if layout.text_side == "first" else image
    text[: layout.text_len] = torch.arange(begin, begin + layout.text_len)
    return torch.cat([grid.flatten(), text])


@lru_cache(maxsize=64)
def _sizes(layout: GroupLayout) -> Tensor:
    return (_order(layout).view(layout.blocks, -1) >= 0).sum(1)


@lru_cache(maxsize=64)
def _slot_of_token(layout: GroupLayout) -> Tensor:
    order = _order(layout)
    valid = (order >= 0).nonzero().squeeze(1)
    return valid[order[valid].argsort()]
