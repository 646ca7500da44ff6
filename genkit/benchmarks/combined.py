"""LCSC in the bench: a training that keeps weights ends in their best combination.

The search (genkit.search.lcsc) takes its share of the method's budget, each combination by as many
samples as it is scored on; its noise and its reference are seen by no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from genkit.denoisers.base import Denoiser
from genkit.metrics.sliced import sliced_wasserstein
from genkit.rng import generator
from genkit.search.lcsc import combine, search
from genkit.training.roles import load_flat

if TYPE_CHECKING:
    from genkit.benchmarks.problem import Problem

SHARE = 0.3  # of the budget, which the search takes
SEED = 8_000_000  # of its noise and its reference
SAMPLES = 400

Weights = Mapping[int, Mapping[str, Tensor]]


def take_best(
    student: nn.Module,
    kept: Weights,
    spent: int,
    problem: Problem,
    samples: Callable[[Denoiser, int, int], Tensor],
    seed: int,
) -> int:
    """Give the student the best combination of weights {step: weights}; what that cost.

    spent: evaluations of the training, of which SHARE / (1 - SHARE) are for the search. samples(
    network, n, seed): n samples, of one evaluation each. The score is the sliced Wasserstein
    distance to draws of the density, the mean over its conditions.
    """
    assert isinstance(student, Denoiser)
    cond, states = problem.cond(SAMPLES), list(kept.values())
    label = cond["label"]
    reference = problem.draw(cond, generator(SEED, "search"))
    tries = int(SHARE / (1 - SHARE) * spent / SAMPLES)

    def score(weights: Any) -> float:
        load_flat(student, combine(states, weights.tolist()), "student")
        x = samples(student, SAMPLES, SEED)
        parts = [sliced_wasserstein(x[label == y], reference[label == y]) for y in label.unique()]
        return sum(parts) / len(parts)

    found = search(score, len(states), tries, seed)
    load_flat(student, combine(states, found.weights.tolist()), "student")
    return tries * SAMPLES
