"""One attention problem as plain tensors and numbers: what every implementation is given.

An implementation is a module with three functions of (Problem, tensors): `forward`, `backward` and
`tangent`, and `forward_tangent`, which fuses the first and the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """Who sees whom, for tensors (batch, heads, tokens, head dim).

    order: the token of each slot (blocks * block_size,), -1 for padding. lens: valid slots of each
    block (batch, blocks); the others see nothing, are seen by nobody, and come out as 0. offsets,
    blocks: key blocks of query block i are blocks[offsets[i] : offsets[i + 1]]. All int64 on the
    CPU. scale: factor on the logits, positive.
    """

    order: Tensor
    lens: Tensor
    offsets: Tensor
    blocks: Tensor
    scale: float

    @property
    def block_size(self) -> int:
        """Slots of one block."""
        return self.order.numel() // self.lens.shape[1]


def wide(x: Tensor) -> torch.dtype:
    """What sums over x are kept in: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def empty_lse(q: Tensor) -> Tensor:
    """An empty log-sum-exp (batch, heads, tokens) for q (batch, heads, tokens, head dim)."""
    return q.new_empty(q.shape[:3], dtype=wide(q))


def empty_like(x: Tensor) -> Tensor:
    """Memory of x's shape, and of its strides where the last dimension is dense."""
    return torch.empty_like(x) if x.stride(-1) == 1 else x.new_empty(x.shape)


def blank(problem: Problem, x: Tensor) -> Tensor:
    """Memory like x for what is written in every valid token: 0 where there are others."""
    valid = int(problem.lens.sum(1).min()) if problem.lens.numel() else 0
    return empty_like(x) if valid == x.shape[2] else empty_like(x).zero_()
