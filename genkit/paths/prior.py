"""PFGM++'s prior: unit Gaussian noise with heavier tails, D counting how heavy.

Xu et al. 2023 (arXiv 2302.04265). Data are charges in N + D dimensions, and noise of the level
sigma has the radius R = r sqrt(B / (1 - B)) with r = sigma sqrt(D) and B ~ Beta(N / 2, D / 2), its
direction being uniform: a Student-t of D degrees of freedom, a Gaussian for D = infinity. Training
and the ODE are as ever. As not published: Gaussian noise is given the radius of equal rank, so that
a sample stays a function of its own unit noise, which any pipeline draws; and nothing is clipped
(the release's clip of B breaks both limits of D).
"""

from __future__ import annotations

import torch
from torch import Tensor


def heavy_tailed(gaussian: Tensor, dimensions: float) -> Tensor:
    """Unit Gaussian noise (b, ...) moved along its own rays to PFGM++'s radii for D = `dimensions`,
    at sigma = 1; the mean of squares per element is D / (D - 2), infinite for D <= 2."""
    rows = gaussian.detach().flatten(1).double().cpu()
    n = rows.shape[1]
    radius = rows.square().sum(1)
    moved = _of_equal_rank(radius, n, dimensions)
    scale = torch.sqrt(moved / radius.clamp(min=1e-300))
    return gaussian * scale.to(gaussian).reshape(-1, *[1] * (gaussian.ndim - 1))


def _of_equal_rank(radius: Tensor, n: int, d: float) -> Tensor:
    """The squared radius (b,) that has as much below it as chi^2 of n has below `radius`."""
    from scipy import special

    below, above = special.chdtr(n, radius.numpy()), special.chdtrc(n, radius.numpy())
    # Whichever is smaller has all its digits; R^2 / D = B / (1 - B), by its own small part too.
    small = below < above
    inside = special.betaincinv(n / 2, d / 2, below)
    outside = special.betaincinv(d / 2, n / 2, above)
    low, high = torch.from_numpy(inside), torch.from_numpy(outside)
    quotient = torch.where(torch.from_numpy(small), low / (1 - low), (1 - high) / high)
    return d * quotient
