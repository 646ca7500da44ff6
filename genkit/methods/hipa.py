"""HiPA: a one-step student whose adapters are held to what one step lacks, the high frequencies.

Zhang & Hooi 2023 (arXiv 2311.18158). The teacher's weights stay and low-rank adapters are trained
(--lora, rank 8 unless said otherwise; the share of parameters is printed). On the teacher's pairs,
the pictures that one step makes are compared with the pair's in three ways: as they are, without
their low Fourier components, and in their edges. No official code: confirmed are the adapters, the
three parts and that nothing else is trained; the targets (teacher samples), the cutoff, Sobel's
filter for the edges (Canny's has no gradient) and the weights are choices of ours, and the distance
is the modality's where the paper's is perceptual. The Fourier part keeps the phase and is float32
whatever the precision of training. Latents are decoded for it, with gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Roles, Stage
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(base.Method):
    family = "trajectory"
    paper = "arXiv 2311.18158"
    needs = ("pairs",)
    defaults = {"lora": 8}

    @dataclass
    class Config(base.Distillation):
        cutoff: float = 0.25
        """Frequencies below this share of the highest (Nyquist's) are left out of the Fourier
        part."""
        fourier: float = 1.0
        """Weight of the Fourier part."""
        edges: float = 1.0
        """Weight of the edge part."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if not 0 < config.cutoff < 1:
            raise ValueError(
                f"cutoff is {config.cutoff}; give a share of Nyquist's between 0 and 1"
            )

    def stages(self) -> list[Stage]:
        return [Stage("distill", guidance=self.guidance, new_data=True)]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        config, pairs = self.config, batch["pairs"]
        made = self.decode(self.at_once(roles["student"], pairs))
        with torch.no_grad():
            wanted = self.decode(pairs["x_0"])
        if made.ndim != 4:
            raise ValueError(
                f"hipa needs pictures (b, c, h, w), whose frequencies it promotes; these samples "
                f"are {tuple(made.shape)}"
            )
        plain = self.distance(made, wanted, None).mean()
        high = self.distance(
            high_pass(made, config.cutoff), high_pass(wanted, config.cutoff), None
        ).mean()
        drawn = self.distance(edges(made), edges(wanted), None).mean()
        total = plain + config.fourier * high + config.edges * drawn
        return {"total": total, "plain": plain, "fourier": high, "edges": drawn}

    def sampler(self) -> Sampler:
        return Sampler(steps=1)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def high_pass(pictures: Tensor, cutoff: float) -> Tensor:
    """Pictures (..., h, w) without their frequencies below `cutoff` of Nyquist's, at least float32:
    a projection, which leaves phases alone."""
    x = _wide(pictures)
    h, w = x.shape[-2:]
    rows = torch.fft.fftfreq(h, 0.5, device=x.device)[:, None]
    columns = torch.fft.rfftfreq(w, 0.5, device=x.device)
    kept = rows**2 + columns**2 >= cutoff**2
    return torch.fft.irfft2(torch.fft.rfft2(x) * kept, s=(h, w))


def edges(pictures: Tensor) -> Tensor:
    """The steepness of pictures (b, c, h, w) at every pixel and channel, by Sobel's filter, as a
    change per pixel; at least float32."""
    x = F.pad(_wide(pictures), (1, 1, 1, 1), mode="replicate")
    rows = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    columns = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    across = (rows[..., 2:] - rows[..., :-2]) / 8
    down = (columns[..., 2:, :] - columns[..., :-2, :]) / 8
    # The root has no gradient at 0; this moves it by a thousandth there.
    return torch.sqrt(across**2 + down**2 + 1e-6)
