"""Exponential moving averages of a role's weights, updated after its optimizer steps.

average <- r average + (1 - r) weights (Polyak & Juditsky 1992, with a rate r that may follow the
update count; warm-up min(r, (1 + k) / (10 + k)) as in TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from genkit.methods.base import Ema


class Average:
    """One average: `module` is a whole network that can be evaluated like its source.

    Parameters are averaged, buffers copied. Only what trains is averaged: frozen weights of the
    source (below an adapter, say) are equal in both and stay so.
    """

    def __init__(self, source: nn.Module, ema: Ema) -> None:
        self.source, self.ema, self.updates = source, ema, 0
        self.module = copy.deepcopy(source).requires_grad_(False)
        pairs = zip(self.module.parameters(), source.parameters(), strict=True)
        moving = [(mine, theirs) for mine, theirs in pairs if theirs.requires_grad]
        self._averages: list[Tensor] = [mine for mine, _ in moving]
        self._weights: list[Tensor] = [theirs for _, theirs in moving]
        self._buffers = list(zip(self.module.buffers(), source.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the source; call after its optimizer stepped."""
        self.updates += 1
        share = 1 - self.ema.rate(self.updates)
        torch._foreach_lerp_(self._averages, self._weights, share)  # pyright: ignore[reportPrivateImportUsage]
        for mine, theirs in self._buffers:
            mine.copy_(theirs)

    @torch.no_grad()
    def restart(self) -> None:
        """Forget the past: equal to the source, with no updates counted."""
        self.updates = 0
        self.module.load_state_dict(self.source.state_dict())
