"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), in one convention.

uncond + w (cond - uncond): w = 1 is off. The paper's own weight is w - 1. Guidance is affine in the
prediction with weights that add up to 1, so it means the same in every prediction kind.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genkit.paths import expand
from genkit.rng import Rng

Cond = Mapping[str, Tensor]


def guide(cond: Tensor, uncond: Tensor, w: float | Tensor) -> Tensor:
    """uncond + w (cond - uncond), w a number or one per sample (b,)."""
    if isinstance(w, Tensor) and w.ndim:
        w = expand(w.to(cond.dtype), cond)
    return uncond + w * (cond - uncond)


def both(cond: Cond, uncond: Cond, batch: int) -> dict[str, Tensor]:
    """The conditions of one doubled batch, uncond first; uncond has batch 1 or `batch`. What it
    does not name, such as a mask, is the same in both halves. ValueError for names that cond does
    not have."""
    if not uncond.keys() <= cond.keys() or (cond and not uncond):
        raise ValueError(f"cond has {sorted(cond)}, uncond has {sorted(uncond)}; they must agree")
    return {
        name: torch.cat([uncond.get(name, value).expand(batch, *value.shape[1:]), value])
        for name, value in cond.items()
    }


def told(cond: Cond, w: float | Tensor, like: Tensor) -> dict[str, Tensor]:
    """cond with the scale w, a number or (b,), as the input "w" (b,) of a network that takes it,
    for samples `like` (b, ...)."""
    scale = torch.as_tensor(w, dtype=torch.float32, device=like.device)
    return {**cond, "w": scale.expand(like.shape[0])}


def drop(cond: Cond, uncond: Cond, share: float, rng: Rng) -> dict[str, Tensor]:
    """cond with a random `share` of its rows replaced by uncond (batch 1), for training; what
    uncond does not name stays."""
    rows = len(next(iter(cond.values())))
    dropped = rng.uniform((rows,)) < share
    return dict(cond) | {
        name: torch.where(expand(dropped, cond[name]), nothing.to(cond[name]), cond[name])
        for name, nothing in uncond.items()
    }
