"""Conditional variance: y -> a mixture in 16 dimensions, whose width and modes depend on y.

Conditions 0..7 have 1, 2, 4 or 8 modes of unequal masses (1 : 2 : ... : 8), each number once with
narrow modes and once with wide ones. What a method does to diversity under a condition shows here:
its variance for each y, the masses of its modes, and their width. Students are 128-wide MLPs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genkit.benchmarks.base import Bench
from genkit.benchmarks.problem import Problem
from genkit.denoisers.analytic import Mixture
from genkit.guidance import Cond
from genkit.metrics.sliced import sliced_wasserstein
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import RectifiedFlow
from genkit.rng import generator

SIDE = 4  # 16 dimensions as a picture of 4 x 4
MODES = (1, 1, 2, 2, 4, 4, 8, 8)
WIDTHS = (0.05, 0.2) * 4
SPREAD = 0.6  # of the modes' centres, in each dimension
STUDENT_WIDTH = 128


def density() -> tuple[Mixture, Tensor]:
    """(the mixture with every y as often, the y of each mode)."""
    labels = torch.tensor([y for y, count in enumerate(MODES) for _ in range(count)])
    masses = torch.cat(
        [torch.arange(1.0, count + 1) / (count * (count + 1) / 2) for count in MODES]
    )
    centres = SPREAD * torch.randn(len(labels), 1, SIDE, SIDE, generator=generator(0, "modes"))
    std = torch.tensor(WIDTHS)[labels]
    return Mixture(RectifiedFlow(), centres, std, masses, labels), labels


class ConditionalVariance(Bench):
    """Figures, means over y: variance, the variance of samples by that of draws (geometric mean,
    below 1 where diversity is lost), and variance_error, the mean |log| of it; width and
    width_error, the same of the variance within a mode; modes_tv, total variation of the modes'
    masses; cover, share of the modes with at least half of their mass; sw, sliced Wasserstein-2."""

    aims = {
        "variance_error": "less",
        "width_error": "less",
        "modes_tv": "less",
        "cover": "more",
        "sw": "less",
    }
    n = 4000

    def __init__(self) -> None:
        self.density, self.labels = density()
        self.problem = Problem(
            "conditional-variance",
            self.density,
            lambda cond, draw: self.density.draw(len(cond["label"]), draw, cond["label"])[0],
            (1, SIDE, SIDE),
            tuple(range(len(MODES))),
            len(MODES),
            lambda: MLPDenoiser(1, SIDE, STUDENT_WIDTH, num_classes=len(MODES)),
        )

    def distance(self, x: Tensor, cond: Cond) -> float:
        real = self.problem.cond(self.n)["label"]
        parts = [
            sliced_wasserstein(x[cond["label"] == y], self.reference[real == y], 64)
            for y in range(len(MODES))
        ]
        return sum(parts) / len(parts)

    def variance(self, y: int) -> tuple[float, float]:
        """(of all, within a mode) of the density of y, over all dimensions together."""
        mine = self.labels == y
        mass, centres = self.density.log_weights[y, mine].exp(), self.density.means[mine].flatten(1)
        within = centres.shape[1] * WIDTHS[y] ** 2
        between = (mass[:, None] * (centres - (mass[:, None] * centres).sum(0)) ** 2).sum()
        return within + float(between), within

    def figures(self, x: Tensor, cond: Cond) -> dict[str, float]:
        ratios, off, held = [], [], []
        for y in range(len(MODES)):
            some, mine = x[cond["label"] == y].flatten(1).double(), self.labels == y
            centres = self.density.means[mine].flatten(1).double()
            mode = torch.cdist(some, centres).argmin(1)
            whole = (some - some.mean(0)).square().sum(1).mean()
            # About the samples' own mean in each mode: where a mode lies is not how wide it is.
            own = torch.stack([some[mode == k].mean(0).nan_to_num() for k in range(len(centres))])
            inner = (some - own[mode]).square().sum(1).mean()
            real = torch.tensor(self.variance(y), dtype=torch.float64)
            ratios.append((torch.stack([whole, inner]) / real).clamp(min=1e-6).log())
            mass = self.density.log_weights[y, mine].exp().double()
            share = torch.bincount(mode, minlength=len(centres)).double() / len(some)
            off.append(float((share - mass).abs().sum() / 2))
            held += (share >= mass / 2).tolist()
        logs = torch.stack(ratios)
        mean, error = logs.mean(0).exp(), logs.abs().mean(0)
        return {
            "variance": float(mean[0]),
            "variance_error": float(error[0]),
            "width": float(mean[1]),
            "width_error": float(error[1]),
            "modes_tv": sum(off) / len(off),
            "cover": sum(held) / len(held),
            "sw": self.distance(x, cond),
        }


def bench() -> ConditionalVariance:
    """The bench."""
    return ConditionalVariance()
