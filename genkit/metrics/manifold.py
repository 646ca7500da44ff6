"""How well samples lie among the real ones, and how much of the real ones they cover.

A set's manifold is the union of balls, one round each point, reaching its k-th nearest neighbour
in the set. Precision: share of samples inside the real manifold. Recall: share of real points
inside the samples' manifold (Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 1 and 2). Density
and coverage: the same with counts of balls, resp. real balls that are hit, only the real manifold
being used (Naeem et al. 2020, arXiv 2002.09797, eq. 5 and 6).

Precision without recall is meaningless, and worse: averaged samples, one per class, score highest.
So nothing here returns one of a pair alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """density >= 0, about 1 for real samples; coverage in [0, 1]."""

    density: float
    coverage: float


def precision_recall(samples: Tensor, real: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of features (n, d) against (m, d); n = m is best."""
    samples, real = samples.double(), real.double()
    inside_real = _balls_hit(samples, real, neighbour_radii(real, k)) > 0
    inside_samples = _balls_hit(real, samples, neighbour_radii(samples, k)) > 0
    return PrecisionRecall(_share(inside_real), _share(inside_samples))


def density_coverage(samples: Tensor, real: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage of features (n, d) against (m, d)."""
    samples, real = samples.double(), real.double()
    radii = neighbour_radii(real, k)
    density = _balls_hit(samples, real, radii).double().mean() / k
    nearest = torch.cat([torch.cdist(part, samples).amin(1) for part in real.split(2048)])
    return DensityCoverage(float(density), _share(nearest < radii))


def neighbour_radii(points: Tensor, k: int) -> Tensor:
    """Distance of each point (n, d) to its k-th nearest other point, (n,)."""
    if not 1 <= k < len(points):
        raise ValueError(f"k must lie in 1..{len(points) - 1} for {len(points)} points, not {k}")
    # The nearest of all is the point itself, hence k + 1.
    parts = [torch.cdist(part, points).kthvalue(k + 1, 1).values for part in points.split(2048)]
    return torch.cat(parts)


def _balls_hit(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """How many of the balls each point lies in, (n,) int64."""
    return torch.cat([(torch.cdist(p, centres) <= radii).sum(1) for p in points.split(2048)])


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
