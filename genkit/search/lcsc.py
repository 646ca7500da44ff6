"""LCSC: a run's checkpoints combined, by coefficients that an evolutionary search finds.

Liu et al. 2024 (arXiv 2404.02241): weights along one run's training, combined linearly by a search
without gradients, can be better than its last ones or any of their running averages, so that fewer
evaluations do when sampling, or less training. theta = theta_0 + sum_i alpha_i (theta_i - theta_0):
coefficients add up to 1 and may be negative. The paper's search was never released. As there, the
search begins with the coefficients of running averages of several rates; here with those of every
checkpoint alone too, than all of which no result can be worse. Not as there: in place of crossover
and mutation with a fixed deviation it is CMA-ES, which on a quadratic with a known optimum comes
within 1% of it in a few hundred evaluations, where they did not in thousands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit import rng

RATES = (0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
SPREAD = 0.3  # deviation of the first generation's coefficients


def combine(checkpoints: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict:
    """sum_i weights[i] checkpoints[i], {name: tensor}, each of the first checkpoint's type.

    Sums are in float32 or more. What is no float, and what all checkpoints agree in, is copied,
    from the checkpoint of the largest weight; so weights of 0 and one 1 give that checkpoint's
    bits. ValueError for no checkpoint, or a number of weights that is not theirs.
    """
    if not checkpoints:
        raise ValueError("there is no checkpoint to combine; train with --keep-weights")
    if len(weights) != len(checkpoints):
        raise ValueError(
            f"{len(weights)} weights for {len(checkpoints)} checkpoints; give one each"
        )
    heaviest = max(range(len(weights)), key=lambda i: abs(weights[i]))
    combined = {}
    for name, value in checkpoints[heaviest].items():
        all_of = [each[name] for each in checkpoints]
        if not value.is_floating_point() or all(torch.equal(value, each) for each in all_of):
            combined[name] = value.clone()
            continue
        total = torch.zeros_like(value, dtype=torch.promote_types(value.dtype, torch.float32))
        for each, weight in zip(all_of, weights, strict=True):
            if weight:
                total.add_(each.to(total.dtype), alpha=weight)
        combined[name] = total.to(value.dtype)
    return combined


def averaging(count: int, rate: float) -> Tensor:
    """The coefficients (count,), float64, that the running average
    average <- rate average + (1 - rate) theta_i, begun at theta_0, gives its checkpoints."""
    powers = rate ** torch.arange(count - 1, -1, -1, dtype=torch.float64)
    return powers * torch.tensor([1.0] + [1 - rate] * (count - 1), dtype=torch.float64)


def beginnings(count: int) -> dict[str, Tensor]:
    """{name: coefficients} a search begins with: each checkpoint alone, running averages, mean."""
    alone = {f"checkpoint {i}": row for i, row in enumerate(torch.eye(count, dtype=torch.float64))}
    averages = {f"average of rate {rate}": averaging(count, rate) for rate in RATES}
    return alone | averages | {"mean": torch.full((count,), 1 / count, dtype=torch.float64)}


@dataclass(frozen=True)
class Found:
    """The best coefficients (count,) and their score; scores of the beginnings, by name; the best
    score after each evaluation."""

    weights: Tensor
    score: float
    began: Mapping[str, float]
    history: Sequence[float]


def search(
    score: Callable[[Tensor], float],
    count: int,
    evaluations: int = 200,
    seed: int = 0,
    told: Callable[[float], None] = lambda best: None,
) -> Found:
    """Coefficients (count,) that add up to 1 of the least `score`, a deterministic function of
    them, after so many evaluations; told(best) is called after each. A score that is no number
    counts as infinite.

    ValueError for no checkpoints, or fewer evaluations than there are beginnings.
    """
    if count < 1:
        raise ValueError("there is no checkpoint to combine; train with --keep-weights")
    starts = beginnings(count)
    if evaluations < len(starts):
        raise ValueError(
            f"evaluations is {evaluations}; the search begins with {len(starts)} combinations of "
            f"{count} checkpoints, give more"
        )
    best: tuple[float, Tensor] = (float("inf"), next(iter(starts.values())))
    history: list[float] = []

    def judge(weights: Tensor) -> float:
        nonlocal best
        value = float(score(weights))
        value = value if value == value else float("inf")
        if not history or value < best[0]:
            best = (value, weights)
        history.append(best[0])
        told(best[0])
        return value

    began = {name: judge(weights) for name, weights in starts.items()}
    if count > 1:
        plane = _plane(count)
        evolution = Evolution(plane.T @ (best[1] - 1 / count), SPREAD, rng.generator(seed, "lcsc"))
        while len(history) < evaluations:
            points = evolution.ask()[: evaluations - len(history)]
            scores = [judge(1 / count + plane @ point) for point in points]
            evolution.tell(points, torch.tensor(scores, dtype=torch.float64))
    return Found(best[1], best[0], began, history)


def _plane(count: int) -> Tensor:
    """(count, count - 1): an orthonormal basis of the coefficients that add up to 0."""
    sums = torch.ones(count, 1, dtype=torch.float64)
    whole = torch.cat([sums, torch.eye(count, dtype=torch.float64)[:, 1:]], 1)
    return torch.linalg.qr(whole).Q[:, 1:]


class Evolution:
    """CMA-ES (Hansen 2016, arXiv 1604.00772, fig. 6, with its default constants and no negative
    weights): a Gaussian around `mean` (d,) of deviation `spread`, moved to the better half of its
    draws, whose covariance and size learn from the moves."""

    def __init__(self, mean: Tensor, spread: float, draw: torch.Generator) -> None:
        d = len(mean)
        self.mean, self.spread, self.draw = mean, spread, draw
        self.size = 4 + int(3 * math.log(d))
        half = self.size // 2
        ranks = torch.arange(1, half + 1, dtype=torch.float64)
        self.shares = math.log((self.size + 1) / 2) - ranks.log()
        self.shares = self.shares / self.shares.sum()
        self.mass = m = 1 / float(self.shares.square().sum())
        self.c_path = (4 + m / d) / (d + 4 + 2 * m / d)
        self.c_size = (m + 2) / (d + m + 5)
        self.c_one = 2 / ((d + 1.3) ** 2 + m)
        self.c_many = min(1 - self.c_one, 2 * (m - 2 + 1 / m) / ((d + 2) ** 2 + m))
        self.damping = 1 + 2 * max(0.0, math.sqrt((m - 1) / (d + 1)) - 1) + self.c_size
        self.norm = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))
        self.covariance = torch.eye(d, dtype=torch.float64)
        self.path, self.size_path = torch.zeros_like(mean), torch.zeros_like(mean)
        self.generation = 0

    def ask(self) -> Tensor:
        """The next generation (size, d)."""
        z = torch.randn(self.size, len(self.mean), generator=self.draw, dtype=torch.float64)
        return self.mean + self.spread * z @ _power(self.covariance, 0.5)

    def tell(self, points: Tensor, scores: Tensor) -> None:
        """Learn from a generation's scores; from one that was cut short, nothing."""
        if len(points) < self.size:
            return
        self.generation += 1
        moves = (points[scores.argsort()[: len(self.shares)]] - self.mean) / self.spread
        move = self.shares @ moves
        self.mean = self.mean + self.spread * move
        c, m = self.c_size, self.mass
        white = _power(self.covariance, -0.5) @ move
        self.size_path = (1 - c) * self.size_path + math.sqrt(c * (2 - c) * m) * white
        length = float(self.size_path.norm())
        unbiased = math.sqrt(1 - (1 - c) ** (2 * self.generation))
        small = length / unbiased < (1.4 + 2 / (len(move) + 1)) * self.norm
        c = self.c_path
        self.path = (1 - c) * self.path + small * math.sqrt(c * (2 - c) * m) * move
        old = 1 - self.c_one - self.c_many + (1 - small) * self.c_one * c * (2 - c)
        self.covariance = (
            old * self.covariance
            + self.c_one * torch.outer(self.path, self.path)
            + self.c_many * moves.T @ (self.shares[:, None] * moves)
        )
        self.spread *= math.exp((self.c_size / self.damping) * (length / self.norm - 1))


def _power(matrix: Tensor, power: float) -> Tensor:
    """A symmetric positive matrix to a power."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=1e-20) ** power) @ vectors.T
