"""A discriminator head on hooked features: one small MLP per feature, logits averaged over tokens.

After DMD2's head on the fake network's bottleneck (Yin et al. 2024, arXiv 2405.14867, sec. 4.3);
here any named submodules of any network serve, as (b, tokens, d).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class FeatureHead(nn.Module):
    """{name: (b, tokens, d)} -> logits (b, heads); `widths` gives each feature's d."""

    def __init__(self, widths: Mapping[str, int], hidden: int = 128) -> None:
        super().__init__()
        self.names = list(widths)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, 1)
            )
            for width in widths.values()
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        # float: in bfloat16 the losses of logits near 0 have three digits.
        logits = [
            head(features[name]).float().mean((1, 2))
            for name, head in zip(self.names, self.heads, strict=True)
        ]
        return torch.stack(logits, -1)
