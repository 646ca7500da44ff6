"""Comparing two generators on equal terms: same noise, same resamples.

Where both map the same noise (a student that keeps its teacher's trajectories), the squared
distance between the pictures ranks without features and without sampling error. Where they do not
(score and GAN methods), a paired bootstrap says how often one beats the other: each round draws
one set of sample indices and one of real indices and uses them for both (Efron and Tibshirani
1993, ch. 6 and 13), so that luck in the draw cancels out of the comparison.

Over training seeds, of which there are few, intervals are Student's (1908) of the values, or of the
differences of two that share a seed: the percentiles of so few values would be too narrow.

A bootstrap covers resampling of these samples, not other training seeds. Its resamples hold
duplicates, which raise distances a little for both sides alike: report figures from whole samples,
and from here only shares and intervals of differences.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Metric = Callable[[Tensor, Tensor], float]


class Paired(NamedTuple):
    """share: rounds in which a beats b (a tie counts half); difference: mean of a - b."""

    share: float
    difference: float
    low: float
    high: float


class Interval(NamedTuple):
    """value on the whole samples; low and high: percentiles over resamples."""

    value: float
    low: float
    high: float


# Student's t at .975 for 1, 2, ... degrees of freedom.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of values, one for each training seed, and its 95% interval (infinite for one)."""
    if not values:
        raise ValueError("there is no interval over no seeds")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Interval(mean, -math.inf, math.inf)
    # Beyond the table, the first term of the expansion about the normal's 1.96.
    t = T[n - 2] if n - 2 < len(T) else 1.96 + 2.4 / (n - 1)
    half = t * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def mse_same_noise(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance, a mean over elements, of samples made from the same noise: (n,)."""
    if student.shape != teacher.shape:
        raise ValueError(f"student's are {tuple(student.shape)}, teacher's {tuple(teacher.shape)}")
    return (student - teacher).double().square().flatten(1).mean(1)


def paired_bootstrap(
    metric: Metric,
    a: Tensor,
    b: Tensor,
    real: Tensor,
    n_boot: int = 100,
    rng: torch.Generator | None = None,
    lower_is_better: bool = True,
    level: float = 0.95,
) -> Paired:
    """How often samples `a` beat samples `b` against `real` under resampling of all three.

    metric(samples, real) -> float. a, b: as many each, row i of both from noise i where the two
    share their noise. rng: None is seed 0. low, high: `level` interval of the difference a - b.
    """
    if len(a) != len(b):
        raise ValueError(f"a paired bootstrap needs as many of each, not {len(a)} and {len(b)}")
    rows = [
        (metric(a[i], real[j]), metric(b[i], real[j]))
        for i, j in _resamples(len(a), len(real), n_boot, rng)
    ]
    values = torch.tensor(rows, dtype=torch.float64)
    difference = values[:, 0] - values[:, 1]
    won = difference < 0 if lower_is_better else difference > 0
    share = (won.double() + (difference == 0).double() / 2).mean()
    return Paired(float(share), float(difference.mean()), *_percentiles(difference, level))


def bootstrap_interval(
    metric: Metric,
    samples: Tensor,
    real: Tensor,
    n_boot: int = 100,
    rng: torch.Generator | None = None,
    level: float = 0.95,
) -> Interval:
    """metric(samples, real), and its `level` percentile interval under resampling of both.

    A distance with finite-sample bias may lie below its own interval: duplicates add bias.
    """
    resamples = _resamples(len(samples), len(real), n_boot, rng)
    values = torch.tensor([metric(samples[i], real[j]) for i, j in resamples]).double()
    return Interval(metric(samples, real), *_percentiles(values, level))


def _resamples(n: int, m: int, n_boot: int, rng: torch.Generator | None):
    """n_boot pairs of indices with replacement, (n,) and (m,)."""
    if n_boot < 1:
        raise ValueError(f"n_boot must be at least 1, not {n_boot}")
    rng = torch.Generator().manual_seed(0) if rng is None else rng
    for _ in range(n_boot):
        yield torch.randint(n, (n,), generator=rng), torch.randint(m, (m,), generator=rng)


def _percentiles(values: Tensor, level: float) -> tuple[float, float]:
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(values, ends).tolist()
    return low, high
