"""Sliced Wasserstein-2 distance: the mean over directions of the exact distance in 1-D.

    SW_2^2 = mean_theta int_0^1 (F_theta^-1(u) - G_theta^-1(u))^2 du

Bonneel et al. 2015 (J. Math. Imaging Vis. 51, eq. 8); F and G are the empirical distributions of
the samples projected on theta, theta uniform on the sphere. Needs no features. What is returned is
the root, SW_2, in the samples' own unit. The directions are fixed by a seed: two figures compare
only under the same ones. Unequal n and m are handled exactly, as both quantile functions are steps.
"""

from functools import lru_cache

import torch
from torch import Tensor


def sliced_wasserstein(
    samples: Tensor, real: Tensor, n_projections: int = 256, seed: int = 0
) -> float:
    """SW_2 between (n, ...) and (m, ...), each sample flattened; 0 is best.

    Equal n compare: the distance between two finite sets from one distribution is not 0.
    """
    if not len(samples) or not len(real):
        raise ValueError(f"no distance between {len(samples)} and {len(real)} samples")
    if samples.shape[1:] != real.shape[1:]:
        raise ValueError(f"samples are {tuple(samples.shape)}, real ones {tuple(real.shape)}")
    return along(projected(samples, n_projections, seed), projected(real, n_projections, seed))


def projected(samples: Tensor, n_projections: int = 256, seed: int = 0) -> Tensor:
    """Samples (n, ...) on the directions of a seed: (n, n_projections)."""
    theta = directions(samples[0].numel(), n_projections, seed).to(samples.device)
    return samples.flatten(1).float() @ theta.T


def along(x: Tensor, y: Tensor) -> float:
    """SW_2 of sets (n, p) and (m, p) that are projected already."""
    return float(wasserstein2_1d(x.T, y.T).mean().sqrt())


def wasserstein2_1d(x: Tensor, y: Tensor) -> Tensor:
    """Squared Wasserstein-2 distances of the rows of x (p, n) and y (p, m): (p,), float64."""
    x, y = x.sort(1).values, y.sort(1).values
    n, m = x.shape[1], y.shape[1]
    if n == m:
        return (x - y).double().square().mean(1)
    # F^-1 steps at i / n, G^-1 at j / m: in units of 1 / (n m) all steps are whole numbers.
    steps = torch.cat([torch.arange(n) * m, torch.arange(m) * n, torch.tensor([n * m])]).unique()
    left, width = steps[:-1].to(x.device), steps.diff().double().to(x.device) / (n * m)
    return (x[:, left // m] - y[:, left // n]).double().square() @ width


@lru_cache(maxsize=8)
def directions(dim: int, n_projections: int, seed: int) -> Tensor:
    """Unit vectors (n_projections, dim), uniform on the sphere; shared, do not write to them."""
    rng = torch.Generator().manual_seed(seed)
    theta = torch.randn(n_projections, dim, generator=rng, dtype=torch.float64)
    return (theta / theta.norm(dim=1, keepdim=True)).float()
