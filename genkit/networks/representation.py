"""Frozen features that training may align a network with: hand-made ones, or a DINOv2.

Histograms of oriented gradients (Dalal & Triggs 2005), which MaskFeat (Wei et al. 2021, arXiv
2112.09133) found to be as good a target as a trained network's features, need no download; DINOv2
(Oquab et al. 2023, arXiv 2304.07193) is opened by transformers, from a folder or the hub. Neither
is what genkit's metrics look through: a network aligned with those would be judged by its training.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HOG = "hog"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation that DINOv2 expects


def representation(name: str) -> nn.Module:
    """The frozen features called "hog", or those of a DINOv2 folder or hub id: pictures
    (b, c, h, w) in [-1, 1] -> (b, tokens, d), the tokens of a square grid, row by row.

    ValueError where there is no such model.
    """
    if name == HOG:
        return OrientedGradients()
    from transformers import AutoModel

    try:
        model = AutoModel.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"representation is {name!r}, which is neither hog nor a model that opens "
            f"({str(error).splitlines()[0]})"
        ) from error
    return Dino(model.eval().requires_grad_(False))


class OrientedGradients(nn.Module):
    """Per cell of `cell` pixels and channel, how much gradient there is in each of `bins`
    directions (of 0 to pi), the whole of unit length; cells without any are 0."""

    def __init__(self, cell: int = 4, bins: int = 9) -> None:
        super().__init__()
        self.cell, self.bins = cell, bins

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, (h / cell) (w / cell), c bins)."""
        x = F.pad(pictures.float(), (1, 1, 1, 1), mode="replicate")
        across = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
        down = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
        length = torch.sqrt(across**2 + down**2)
        bin_of = torch.atan2(down, across) / math.pi * self.bins
        index = bin_of.floor().long() % self.bins
        votes = torch.stack([length * (index == k) for k in range(self.bins)], 2)
        cells = F.avg_pool2d(votes.flatten(1, 2), self.cell)
        return F.normalize(cells.flatten(2).mT, dim=-1)


class Dino(nn.Module):
    """The patch tokens of a DINOv2's last layer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """(b, 1 or 3, h, w), resized to the model's own size -> (b, tokens, d)."""
        config, x = self.model.config, pictures.float()
        side = config.image_size // config.patch_size * config.patch_size
        x = F.interpolate(x, (side, side), mode="bicubic", antialias=True)
        mean, std = (x.new_tensor(each).reshape(3, 1, 1) for each in IMAGENET)
        seen = self.model(pixel_values=((x.expand(-1, 3, -1, -1) + 1) / 2 - mean) / std)
        extra = 1 + getattr(config, "num_register_tokens", 0)
        return seen.last_hidden_state[:, extra:]


def on_grid(tokens: Tensor, count: int) -> Tensor:
    """Tokens (b, n, d) of a square grid as `count` tokens of one, averaged or repeated."""
    side, wanted = math.isqrt(tokens.shape[1]), math.isqrt(count)
    if side * side != tokens.shape[1] or wanted * wanted != count:
        raise ValueError(f"{tokens.shape[1]} and {count} tokens are not both those of square grids")
    if side == wanted:
        return tokens
    grid = tokens.mT.unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(grid, wanted).flatten(2).mT


class Projector(nn.Module):
    """Three layers with SiLU between, from a block's width to the features'."""

    def __init__(self, width: int, features: int, hidden: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, features),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, tokens, width) -> (b, tokens, features)."""
        return self.layers(tokens)
