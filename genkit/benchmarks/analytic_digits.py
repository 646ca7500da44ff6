"""Analytic digits: a kernel density on scikit-learn's 1,797 digits, which is data AND teacher.

Score, posterior mean and log density are closed forms (genkit.denoisers.analytic), so nothing is
owed to a teacher's own error. The kernel's standard deviation is 0.15 where pixels lie in [-1, 1].
Students are 256-wide MLPs without class labels, too small for the task, so methods must choose what
to give up; several figures show what, since each alone ranks methods wrongly.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from genkit.benchmarks.base import Bench
from genkit.benchmarks.problem import Problem
from genkit.data.digits import load
from genkit.denoisers.analytic import Mixture
from genkit.guidance import Cond
from genkit.metrics.features import digits_features
from genkit.metrics.frechet import frechet_distance
from genkit.metrics.nearest import nearest_distance
from genkit.metrics.sliced import sliced_wasserstein
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import RectifiedFlow

STD = 0.15
NO_CLASS = 0  # the one label of a network without classes
WIDTH = 256


class AnalyticDigits(Bench):
    """Figures: nll, mean of log(peak / p(x)) in nats, where peak is the density at the centre of a
    digit that stands alone: fresh draws have 32, half the dimension, less is too near to the
    centres. cover, share of the digits that are nearest to at least one sample. class_tv, total
    variation between the classes of samples (posterior under the density) and of the data. sw,
    sliced Wasserstein-2 of pixels; fd, Frechet distance of a classifier's features. nearest, mean
    distance to the nearest digit."""

    aims = {"nll": "near", "cover": "more", "class_tv": "less", "sw": "less", "fd": "less"}
    n = 5000

    def __init__(self) -> None:
        data = load("all")
        self.labels, self.examples = data.cond["label"], data.x_0
        one = torch.full_like(self.labels, NO_CLASS)  # a density of all digits alike
        self.density = Mixture(RectifiedFlow(), data.x_0, STD, labels=one)
        self.net = digits_features()
        self.problem = Problem(
            "analytic-digits",
            self.density,
            lambda cond, draw: self.density.draw(len(cond["label"]), draw)[0],
            tuple(data.x_0.shape[1:]),
            (NO_CLASS,),
            NO_CLASS,
            lambda: MLPDenoiser(1, 8, WIDTH, num_classes=0),
        )

    @cached_property
    def features(self) -> Tensor:
        """Features of the reference."""
        return self.net.features(self.reference)

    def distance(self, x: Tensor, cond: Cond) -> float:
        return sliced_wasserstein(x, self.reference)

    def figures(self, x: Tensor, cond: Cond) -> dict[str, float]:
        assert self.examples is not None
        k, dim = len(self.labels), x[0].numel()
        seen, nll = torch.zeros(k, dtype=torch.bool), 0.0
        classes = torch.nn.functional.one_hot(self.labels).double()
        share = torch.zeros(classes.shape[1], dtype=torch.float64)
        variance = torch.tensor(2 * torch.pi * STD**2)
        log_peak = -torch.tensor(float(k)).log() - dim / 2 * variance.log()
        for part in x.split(2000):
            t = torch.zeros(len(part))
            nll += float((log_peak - self.density.log_density(part, t)).sum())
            posterior = self.density.responsibilities(part, t)
            seen[posterior.argmax(1)] = True
            share += posterior.double().sum(0) @ classes
        return {
            "nll": nll / len(x),
            "cover": float(seen.double().mean()),
            "class_tv": float((share / len(x) - classes.mean(0)).abs().sum() / 2),
            "sw": self.distance(x, cond),
            "fd": frechet_distance(self.net.features(x), self.features),
            "nearest": float(nearest_distance(x, self.examples).mean()),
        }


def bench() -> AnalyticDigits:
    """The bench."""
    return AnalyticDigits()
