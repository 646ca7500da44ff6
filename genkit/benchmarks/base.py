"""What the benches of methods share: figures of samples, the floor, the teacher beside students.

A bench is a file with a function `bench()`; it says what the problem is and which figures tell a
good student from a bad one. No figure alone ranks methods, so all of them count (ranking.py).
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar, Literal

from torch import Tensor

from genkit import hub
from genkit.benchmarks.problem import Problem, draw_samples
from genkit.guidance import Cond
from genkit.rng import generator
from genkit.sampling import Sampler

NAMES = ("analytic-digits", "spectral-fields", "conditional-variance")
ORDERS = (1, 2, 3)  # of the teacher's multistep solver

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
        """A distance of samples to the density by which the teacher's solver is chosen."""

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
        """The exact teacher at `steps` evaluations, by the best of its solvers: that of the least
        distance on a fifth of the samples; its order is a figure too."""
        problem = self.problem

        def samples(order: int, n: int) -> Tensor:
            sampler = Sampler(steps, order=order)
            scheduler = hub.make_scheduler(sampler, problem.density.path, "velocity", 1.0)
            return draw_samples(
                lambda noise, cond, generators: problem.density.sample(
                    noise, cond, scheduler, steps
                ),
                problem,
                n,
                seed,
            )

        few = self.n // 5
        tried = {
            order: self.distance(samples(order, few), problem.cond(few))
            for order in ORDERS[: min(steps, len(ORDERS))]
        }
        order = min(tried, key=lambda each: tried[each])
        return self.measured(samples(order, self.n)) | {"order": order}


def open_bench(name: str, n: int | None = None) -> Bench:
    """The bench of a name, n samples being measured; ValueError for a name that is none."""
    from genkit.catalogue import unknown

    if name not in NAMES:
        raise unknown("bench", name, NAMES)
    bench = importlib.import_module(f"genkit.benchmarks.{name.replace('-', '_')}").bench()
    if n is not None:
        bench.n = n
    return bench
