"""Monotonic alignment: which token each frame belongs to, and frames made of tokens' durations.

The search is Glow-TTS's (Kim et al. 2020, arXiv 2005.11129, alg. 1), a dynamic programme over
frames that runs over all tokens and the whole batch at once, in plain torch.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def monotonic_alignment(score: Tensor, frames: Tensor, tokens: Tensor) -> Tensor:
    """The durations (b, l) int64 of the path of largest total score (b, t, l).

    A path begins at the first token, ends at the last of its `tokens` (b,) on the last of its
    `frames` (b,), and from frame to frame stays or moves on by one; so every token has at least one
    frame. ValueError where there are fewer frames than tokens.
    """
    if bool((frames < tokens).any()):
        row = int((frames < tokens).nonzero()[0])
        raise ValueError(
            f"an utterance has {int(frames[row])} frames for {int(tokens[row])} sounds; it is too "
            "short for its text"
        )
    b, t, length = score.shape
    # One more column before the first token: nothing comes from there.
    best = score.new_full((b, length + 1), -torch.inf)
    best[:, 1] = score[:, 0, 0]
    moved = torch.zeros(b, t, length, dtype=torch.bool, device=score.device)
    for k in range(1, t):
        moved[:, k] = best[:, :-1] > best[:, 1:]
        best[:, 1:] = torch.maximum(best[:, :-1], best[:, 1:]) + score[:, k]
    durations = torch.zeros(b, length, dtype=torch.int64, device=score.device)
    rows, place = torch.arange(b, device=score.device), tokens.to(score.device) - 1
    for k in range(t - 1, -1, -1):
        inside = k < frames.to(score.device)
        durations[rows, place] += inside.long()
        place = place - (inside & moved[rows, k, place]).long()
    return durations


def squared_score(x: Tensor, means: Tensor) -> Tensor:
    """-|x - mean|^2 / 2 of every frame (b, t, c) under every token's mean (b, l, c): (b, t, l), the
    log-likelihood of unit Gaussians but for a constant."""
    cross = x @ means.transpose(1, 2)
    return cross - (x.square().sum(-1)[:, :, None] + means.square().sum(-1)[:, None]) / 2


def whole_durations(seconds: Tensor, total: Tensor | None = None) -> Tensor:
    """Durations (b, l) in frames, 0 for padding, as whole ones whose ends are rounded, so that no
    error adds up; stretched to `total` (b,) frames where that is given, at least 1 in all."""
    seconds = seconds.double()
    if total is not None:
        seconds = seconds * (total / seconds.sum(-1).clamp(min=1e-6))[:, None]
    ends = seconds.cumsum(-1).round().long()
    ends = torch.maximum(ends, ends.new_tensor(1))
    return torch.diff(ends, dim=-1, prepend=torch.zeros_like(ends[:, :1]))


def spread(values: Tensor, durations: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Tokens' values (b, l, c) over their durations (b, l): ((b, frames, c), mask (b, frames)).

    What lies beyond `frames` is cut; beyond the durations there are zeros.
    """
    ends = durations.cumsum(-1)
    at = torch.arange(frames, device=values.device).expand(len(values), -1).contiguous()
    place = torch.searchsorted(ends, at, right=True)
    mask = (place < values.shape[1]) & (at < ends[:, -1:])
    index = place.clamp(max=values.shape[1] - 1)[..., None].expand(-1, -1, values.shape[2])
    return values.gather(1, index) * mask[..., None], mask
