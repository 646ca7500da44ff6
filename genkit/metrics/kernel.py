"""Maximum mean discrepancy: KID on features, Gaussian kernel on pixels.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

Gretton et al. 2012 (JMLR 13, eq. 3), the unbiased estimator: its mean is 0 for equal
distributions at any n, so it may be negative, and unlike the Frechet distance it compares across
n. KID is that with k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018, arXiv 1801.01401, sec. 3).

Differs from the KID of that paper: features are standardised by the real ones first (a cubic
kernel on raw features lives on their scale, and its figures run to thousands), and all pairs are
used instead of a mean over random blocks.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]


def kid(samples: Tensor, real: Tensor) -> float:
    """Kernel distance between features (n, d) and (m, d), standardised by the real ones."""
    std, mean = torch.std_mean(real.double(), 0)
    if not (std > 0).all():
        raise ValueError("a feature is constant over the real samples: it cannot be standardised")
    return mmd2((samples - mean) / std, (real - mean) / std, cubic)


def rbf_mmd2(samples: Tensor, real: Tensor, bandwidth: float | None = None) -> float:
    """Squared MMD with a Gaussian kernel between (n, ...) and (m, ...).

    bandwidth: sigma of exp(-|x - y|^2 / (2 sigma^2)); None takes `median_distance(real)`. Give
    the same one wherever figures are compared.
    """
    sigma = median_distance(real) if bandwidth is None else bandwidth
    return mmd2(samples.flatten(1), real.flatten(1), lambda x, y: gaussian(x, y, sigma))


def mmd2(x: Tensor, y: Tensor, kernel: Kernel) -> float:
    """Unbiased squared MMD of (n, d) and (m, d) under `kernel`, in float64."""
    if min(len(x), len(y)) < 2:
        raise ValueError(f"MMD needs two samples on each side, not {len(x)} and {len(y)}")
    x, y = x.double(), y.double()
    between = sum(kernel(rows, y).sum() for rows in x.split(2048)) / (len(x) * len(y))
    return float(_mean_off_diagonal(x, kernel) + _mean_off_diagonal(y, kernel) - 2 * between)


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / d + 1)^3 for every pair, (n, m)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """exp(-|x - y|^2 / (2 sigma^2)) for every pair, (n, m)."""
    return torch.exp(torch.cdist(x, y).square() / (-2 * sigma**2))


def median_distance(x: Tensor) -> float:
    """Median distance between two of the samples (n, ...): the usual bandwidth.

    Of the first 2,048 samples if there are more; they should be in no order.
    """
    distances = torch.pdist(x[:2048].flatten(1).double())
    return float(distances.median())


def _mean_off_diagonal(x: Tensor, kernel: Kernel) -> Tensor:
    n, total = len(x), x.new_zeros(())
    for start in range(0, n, 2048):
        block = kernel(x[start : start + 2048], x)
        total = total + block.sum() - block.diagonal(start).sum()
    return total / (n * (n - 1))
