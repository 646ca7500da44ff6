"""Spectral fields: pictures whose spectrum is known, 32 x 32, to see blur for what it is.

Class 0 is a Gaussian field with the spectrum 1 / f^2, whose score is a closed form; class 1 are
dead leaves (Lee, Mumford & Huang 2001): discs of random size and shade that hide one another, a
kernel density on 256 of them, so that their score is exact as well. Both have the same variance and
nearly the same spectrum; edges, and so the kurtosis of gradients, tell them apart. Students are
small MLP-Mixers that are told the class.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from genkit.benchmarks.base import Bench
from genkit.benchmarks.problem import Problem
from genkit.denoisers.analytic import ByClass, Field, Mixture, fourier_basis
from genkit.guidance import Cond
from genkit.metrics.nearest import nearest_distance
from genkit.metrics.sliced import sliced_wasserstein
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import RectifiedFlow
from genkit.rng import generator

SIZE = 32
EXPONENT = 2.0
STD = 0.5  # of a pixel
KERNEL = 0.05  # of the density on the leaves
LEAVES = 256
WIDTH, DEPTH, PATCH = 64, 3, 8  # of students: a patch's pixels just fit
HIGH = 8  # the frequency, in waves across the picture, from which the high band begins
CLASSES = ("field", "leaves")


def spectrum() -> tuple[Tensor, Tensor, Tensor]:
    """(basis, radial frequency (SIZE, SIZE), std of each coefficient (1, SIZE, SIZE)): power
    1 / f^EXPONENT, that of f = 0 as at f = 1, a pixel's variance STD^2."""
    basis, frequency = fourier_basis(SIZE)
    radius = torch.sqrt(frequency[:, None] ** 2 + frequency**2)
    power = radius.clamp(min=1) ** -EXPONENT
    power = power * STD**2 / power.mean()
    return basis, radius, power.sqrt()[None]


def dead_leaves(n: int, draw: torch.Generator) -> Tensor:
    """n pictures (n, 1, SIZE, SIZE) of discs, in mean 0 and variance STD^2 as a whole: radii r with
    the density 1 / r^3 between 2 and SIZE / 2 pixels, centres that may lie outside, shades even."""
    low, high, discs, margin = 2.0, SIZE / 2, 300, SIZE / 2
    place = torch.arange(SIZE, dtype=torch.float32)
    x = torch.full((n, SIZE, SIZE), torch.nan)
    for _ in range(discs):  # from the front to the back
        u = torch.rand(n, generator=draw)
        radius = (low**-2 + u * (high**-2 - low**-2)) ** -0.5
        centre = torch.rand(2, n, generator=draw) * (SIZE + 2 * margin) - margin
        across, down = ((place - each[:, None]) ** 2 for each in centre)
        inside = across[:, None, :] + down[:, :, None] < (radius**2)[:, None, None]
        shade = torch.rand(n, generator=draw)[:, None, None].expand_as(x)
        x = torch.where(x.isnan() & inside, shade, x)
    x = (x.nan_to_num(0.5) - 0.5) * math.sqrt(12) * STD
    return x[:, None]


class SpectralFields(Bench):
    """Figures, of each class: slope, that of log power on log frequency; high, the
    energy of the high band by that of real draws, below 1 where samples are blurred; kurtosis of
    the gradients, 3 for the Gaussian. sw, sliced Wasserstein-2, the mean of both. Of the leaves:
    cover, share of the training pictures nearest to a sample; nearest, the distance to those."""

    aims = {
        "slope_field": "near",
        "slope_leaves": "near",
        "high_field": "near",
        "high_leaves": "near",
        "kurtosis_field": "near",
        "kurtosis_leaves": "near",
        "sw": "less",
        "cover": "more",
    }
    n = 2000

    def __init__(self) -> None:
        path = RectifiedFlow()
        self.basis, self.radius, std = spectrum()
        self.examples = dead_leaves(LEAVES, generator(0, "leaves"))
        self.field = Field(path, self.basis, std)
        self.leaves = Mixture(path, self.examples, KERNEL)
        self.problem = Problem(
            "spectral-fields",
            ByClass([self.field, self.leaves]),
            self._draw,
            (1, SIZE, SIZE),
            (0, 1),
            2,
            lambda: MLPDenoiser(1, SIZE, WIDTH, DEPTH, num_classes=len(CLASSES), patch=PATCH),
        )

    def _draw(self, cond: Cond, draw: torch.Generator) -> Tensor:
        n = len(cond["label"])
        both = torch.stack([self.field.draw(n, draw), self.leaves.draw(n, draw)[0]])
        return both[cond["label"], torch.arange(n)]

    def _of(self, name: str, x: Tensor, cond: Cond) -> Tensor:
        return x[cond["label"] == CLASSES.index(name)]

    def slope(self, x: Tensor) -> float:
        """Of log power on log radial frequency, over all coefficients of 1..SIZE / 2 waves, by
        least squares."""
        power = self.field.coefficients(x.double()).square().mean((0, 1))
        inside = (self.radius >= 1) & (self.radius <= SIZE / 2)
        f = self.radius[inside].log()
        f = f - f.mean()
        return float((f * power[inside].clamp(min=1e-12).log()).sum() / f.square().sum())

    def high(self, x: Tensor) -> float:
        """Energy of a picture at frequencies from HIGH on."""
        coefficients = self.field.coefficients(x.double())
        return float(coefficients[..., self.radius >= HIGH].square().sum(-1).mean())

    def _high_share(self, name: str, x: Tensor, cond: Cond) -> float:
        return self.high(self._of(name, x, cond)) / self._real_high[name]

    @cached_property
    def _real_high(self) -> dict[str, float]:
        real = self.problem.cond(self.n)
        return {name: self.high(self._of(name, self.reference, real)) for name in CLASSES}

    def distance(self, x: Tensor, cond: Cond) -> float:
        real = self.problem.cond(self.n)
        parts = [
            sliced_wasserstein(self._of(name, x, cond), self._of(name, self.reference, real))
            for name in CLASSES
        ]
        return sum(parts) / len(parts)

    def figures(self, x: Tensor, cond: Cond) -> dict[str, float]:
        assert self.examples is not None
        found: dict[str, float] = {}
        for name in CLASSES:
            mine = self._of(name, x, cond)
            found[f"slope_{name}"] = self.slope(mine)
            found[f"high_{name}"] = self._high_share(name, x, cond)
            found[f"kurtosis_{name}"] = kurtosis(mine)
        leaves = self._of("leaves", x, cond)
        seen = torch.cdist(leaves.flatten(1), self.examples.flatten(1)).argmin(1).unique()
        return found | {
            "sw": self.distance(x, cond),
            "cover": len(seen) / len(self.examples),
            "nearest": float(nearest_distance(leaves, self.examples).mean()),
        }


def kurtosis(x: Tensor) -> float:
    """E d^4 / (E d^2)^2 of the differences d of neighbouring pixels, across and down."""
    d = torch.cat([x.diff(dim=-1).flatten(), x.diff(dim=-2).flatten()]).double()
    return float(d.pow(4).mean() / d.square().mean().clamp(min=1e-12) ** 2)


def bench() -> SpectralFields:
    """The bench."""
    return SpectralFields()
