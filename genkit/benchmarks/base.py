"""What the benches of methods share: figures of samples, the floor, the teacher beside students.

A bench is a file with a function `bench()`; it says what the problem is and which figures tell a
good student from a bad one. No figure alone ranks methods, so all of them count (ranking.py).
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from genkit import hub
from genkit.benchmarks.problem import Problem, draw_samples
from genkit.guidance import Cond
from genkit.rng import generator
from genkit.sampling import Sampler

NAMES = ("analytic-digits", "spectral-fields", "conditional-variance")
ORDERS = (1, 2, 3)  # of the teacher's multistep solver
FINE = 200  # steps that all but reach the ODE's end

# Which value of a figure is best: the least, the largest, or the one of the floor.
Aim = Literal["less", "more", "near"]


class Bench:
    """A problem, and the figures of samples of it.

    aims: the figures that methods are ranked by, and what is best of each; more may be shown. n:
    samples that are measured. examples: training examples (m, ...), where the density is made of
    such.
    """

    aims: ClassVar[dict[str, Aim]]
    problem: Problem
    n: int
    examples: Tensor | None = None

    @abstractmethod
    def figures(self, x: Tensor, cond: Cond) -> dict[str, float]:
        """The figures of samples x (n, ...) made for the conditions `cond`."""

    @abstractmethod
    def distance(self, x: Tensor, cond: Cond) -> float:
        """A distance of samples to the density."""

    @cached_property
    def reference(self) -> Tensor:
        """n draws of the density, which distances are measured to."""
        return self.problem.draw(self.problem.cond(self.n), generator(0, "reference"))

    def measured(self, x: Tensor) -> dict[str, float]:
        """The figures of n samples whose conditions are `problem.cond(n)`."""
        return self.figures(x, self.problem.cond(len(x)))

    def floor(self, seed: int) -> dict[str, float]:
        """Fresh draws of the density: what a perfect generator scores."""
        draw = generator(seed, "floor")
        return self.measured(self.problem.draw(self.problem.cond(self.n), draw))

    def teacher(self, steps: int, seed: int) -> dict[str, Any]:
        """The exact teacher at `steps` evaluations, by the best of its solvers: that which ends the
        nearest to the ODE's own end of the same noise, which bounds the Wasserstein-2 distance that
        it adds; its order is a figure too."""
        ends = self._ends
        apart = {
            order: float((self._solved(steps, order, len(ends), 0) - ends).square().mean())
            for order in ORDERS[: min(steps, len(ORDERS))]
        }
        order = min(apart, key=lambda each: apart[each])
        return self.measured(self._solved(steps, order, self.n, seed)) | {"order": order}

    @cached_property
    def _ends(self) -> Tensor:
        """Where the ODE takes a tenth of the noise of seed 0, all but exactly."""
        return self._solved(FINE, ORDERS[-1], max(1, self.n // 10), 0)

    def _solved(self, steps: int, order: int, n: int, seed: int) -> Tensor:
        """n samples of the exact teacher by a multistep solver of this order."""
        density = self.problem.density
        scheduler = hub.make_scheduler(Sampler(steps, order=order), density.path, "velocity", 1.0)

        def run(noise: Tensor, cond: Cond, generators: list[torch.Generator]) -> Tensor:
            return density.sample(noise, cond, scheduler, steps)

        return draw_samples(run, self.problem, n, seed)


def open_bench(name: str, n: int | None = None) -> Bench:
    """The bench of a name, n samples being measured; ValueError for a name that is none."""
    from genkit.catalogue import unknown

    if name not in NAMES:
        raise unknown("bench", name, NAMES)
    bench = importlib.import_module(f"genkit.benchmarks.{name.replace('-', '_')}").bench()
    if n is not None:
        bench.n = n
    return bench
