"""Small networks beside the student: a discriminator head on features, a weight of noise levels.

The head is one small MLP per feature, its logits averaged over tokens, after DMD2's on the fake
network's bottleneck (Yin et al. 2024, arXiv 2405.14867, sec. 4.3); here any named submodules of any
network serve, as (b, tokens, d). The weight is that of EDM2 (Karras et al. 2024, arXiv 2312.02696),
there on random frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class FeatureHead(nn.Module):
    """{name: (b, tokens, d)} -> logits (b, heads), or with several classes (b, heads, classes);
    `widths` gives each feature's d."""

    def __init__(self, widths: Mapping[str, int], hidden: int = 128, classes: int = 1) -> None:
        super().__init__()
        self.names, self.classes = list(widths), classes
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, classes)
            )
            for width in widths.values()
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        # float: in bfloat16 the losses of logits near 0 have three digits.
        logits = [
            head(features[name]).float().mean(1)
            for name, head in zip(self.names, self.heads, strict=True)
        ]
        each = torch.stack(logits, 1)
        return each[..., 0] if self.classes == 1 else each


def blocks(network: nn.Module) -> tuple[str, ...]:
    """The names of all entries of the network's longest list of blocks; ValueError if it has none.
    Their outputs are what heads read that are to see all of a network."""
    lists = {name: m for name, m in network.named_modules() if isinstance(m, nn.ModuleList)}
    if not lists:
        raise ValueError("the network has no list of blocks; name its submodules with features=")
    name = max(lists, key=lambda each: len(lists[each]))
    return tuple(f"{name}.{i}" for i in range(len(lists[name])))


def middle_block(network: nn.Module) -> tuple[str, ...]:
    """The middle one of `blocks`, alone."""
    names = blocks(network)
    return (names[len(names) // 2],)


class LogWeight(nn.Module):
    """The logarithm of a loss's learned weight at a noise angle (b,) in [0, pi/2]: a sum of cosines
    that begins at 0."""

    order: Tensor

    def __init__(self, count: int = 16) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(count, dtype=torch.float32))
        self.scale = nn.Parameter(torch.zeros(count))

    def forward(self, angle: Tensor) -> Tensor:
        # Half waves over the whole range, which any smooth function of it is a sum of.
        return torch.cos(2 * angle.float()[:, None] * self.order) @ self.scale
