"""Which groups a group's queries see, as plain data that compiles to lists of blocks.

surround and criss_cross are GRAT's two patterns (GRAT-B and GRAT-X, arXiv 2505.14687), written from
the paper's text; its code for the first was never released, and the paper does not say what happens
at the grid's border, so that is an option here. sliding_tile is that of STA (arXiv 2502.04507).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from genkit_kernels.layout import GroupLayout

Border = Literal["clamp", "truncate"]


class Region:
    """A set of (query group, key group) pairs on any grid of groups. `a | b` is the union."""

    def pairs(self, counts: tuple[int, ...]) -> Tensor:
        """The pairs as query * groups + key (n,), in any order, for `counts` groups per axis."""
        raise NotImplementedError

    def __or__(self, other: Region) -> Region:
        return Union((self, other))


@dataclass(frozen=True)
class Window(Region):
    """Groups in a box around the query's own, `size` groups wide along each axis (odd).

    border "clamp": at the grid's edge the box moves inwards, so every query sees as many groups
    (as NATTEN and STA do); an axis with fewer groups than `size` is seen whole. "truncate": what
    lies outside is left out, so that queries at the edge see fewer.
    """

    size: int | tuple[int, ...]
    border: Border = "clamp"

    def __post_init__(self) -> None:
        if self.border not in ("clamp", "truncate"):
            raise ValueError(f"border is {self.border!r}; give 'clamp' or 'truncate'")
        sizes = [self.size] if isinstance(self.size, int) else self.size
        if not sizes or any(s < 1 or s % 2 == 0 for s in sizes):
            raise ValueError(
                f"window is {self.size}; give odd positive numbers of groups, so that a query sees "
                "as many on either side"
            )

    def pairs(self, counts: tuple[int, ...]) -> Tensor:
        sizes = (self.size,) * len(counts) if isinstance(self.size, int) else self.size
        if len(sizes) != len(counts):
            raise ValueError(f"window {sizes} has not one size per axis of {counts} groups")
        axes = [_band(n, s, self.border) for n, s in zip(counts, sizes, strict=True)]
        return _product(axes, counts)


@dataclass(frozen=True)
class CrissCross(Region):
    """Groups that share at least one index with the query's: a row and a column, or 3 planes."""

    def pairs(self, counts: tuple[int, ...]) -> Tensor:
        same = [
            _product([_band(n, 1 if a == axis else None) for a, n in enumerate(counts)], counts)
            for axis in range(len(counts))
        ]
        return torch.cat(same)


@dataclass(frozen=True)
class Full(Region):
    """Every group: dense attention, through the same code."""

    def pairs(self, counts: tuple[int, ...]) -> Tensor:
        return _product([_band(n, None) for n in counts], counts)


@dataclass(frozen=True)
class Union(Region):
    """What any of its parts sees."""

    parts: tuple[Region, ...]

    def pairs(self, counts: tuple[int, ...]) -> Tensor:
        return torch.cat([part.pairs(counts) for part in self.parts])


def surround(radius: int | Sequence[int] = 1, border: Border = "clamp") -> Region:
    """The query's group and `radius` groups to each side of it; one radius, or one per axis."""
    radii = (radius,) if isinstance(radius, int) else tuple(radius)
    if not radii or min(radii) < 0:
        raise ValueError(f"radius is {radius}; give 0 or more groups")
    sizes = tuple(2 * r + 1 for r in radii)
    return Window(sizes[0] if isinstance(radius, int) else sizes, border)


def sliding_tile(window: int | Sequence[int], border: Border = "clamp") -> Region:
    """A window of so many groups (odd) along each axis, the query's own in the middle."""
    return Window(window if isinstance(window, int) else tuple(window), border)


def criss_cross() -> Region:
    """2-D: the same row or column of groups; 3-D: the same frame, row or column index."""
    return CrissCross()


def full() -> Region:
    """Every group."""
    return Full()


def _band(n: int, size: int | None, border: Border = "clamp") -> tuple[Tensor, Tensor]:
    """Pairs (query, key) of groups on one axis of n; size None: all."""
    i = torch.arange(n)
    width = n if size is None else min(size, n)
    if border == "truncate" and size is not None:
        query, key = ((i[:, None] - i).abs() <= size // 2).nonzero().unbind(1)
        return query, key
    start = (i - width // 2).clamp(0, n - width)
    key = start[:, None] + torch.arange(width)
    return i[:, None].expand_as(key).flatten(), key.flatten()


def _product(axes: Sequence[tuple[Tensor, Tensor]], counts: tuple[int, ...]) -> Tensor:
    """Pairs on the grid whose indices are paired on every axis, as query * groups + key."""
    query = key = torch.zeros(1, dtype=torch.int64)
    groups = 1
    for (q, k), n in zip(axes, counts, strict=True):
        query = (query[:, None] * n + q).flatten()
        key = (key[:, None] * n + k).flatten()
        groups *= n
    return query * groups + key


@dataclass(frozen=True, eq=False)
class BlockLists:
    """For query block i the key blocks `blocks[offsets[i] : offsets[i + 1]]`, ascending."""

    offsets: Tensor
    blocks: Tensor

    def dense(self) -> Tensor:
        """The same as booleans (query blocks, key blocks)."""
        n = self.offsets.numel() - 1
        seen = torch.zeros(n, n, dtype=torch.bool)
        seen[torch.arange(n).repeat_interleave(self.offsets.diff()), self.blocks] = True
        return seen


@lru_cache(maxsize=64)
def compile_region(region: Region, layout: GroupLayout) -> BlockLists:
    """The block lists of `region` on `layout`: text sees everything and is seen by everything.

    ValueError where a group's queries see no group of the grid.
    """
    groups, blocks = layout.image_blocks, layout.blocks
    pairs = region.pairs(layout.counts)
    query, key = pairs // groups, pairs % groups
    alone = (query.bincount(minlength=groups) == 0).nonzero().flatten().tolist()
    if alone:
        raise ValueError(
            f"region {region} leaves the queries of group {alone[0]} without keys "
            f"({len(alone)} of {layout.counts} groups); unite it with one that covers them"
        )
    every, text = torch.arange(blocks), torch.arange(groups, blocks)
    to_text = torch.cartesian_prod(torch.arange(groups), text)
    from_text = torch.cartesian_prod(text, every)
    codes = [query * blocks + key]
    codes += [p[:, 0] * blocks + p[:, 1] for p in (to_text, from_text) if p.numel()]
    code = torch.cat(codes).unique()
    offsets = torch.zeros(blocks + 1, dtype=torch.int64)
    offsets[1:] = (code // blocks).bincount(minlength=blocks).cumsum(0)
    return BlockLists(offsets, code % blocks)
