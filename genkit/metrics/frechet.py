"""Frechet distance between two sets of features, each taken for a Gaussian.

    FD = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^1/2 C_2 C_1^1/2)^1/2)

Dowson and Landau 1982; as FID in Heusel et al. 2017 (arXiv 1706.08500, eq. 6). All in float64, by
two symmetric eigendecompositions: no general matrix root, so nothing complex and no iteration.

It falls with the number of samples at equal quality (the bias is about proportional to 1/n and
grows with d^2), so only figures at equal n compare.
"""

import torch
from torch import Tensor


def frechet_distance(samples: Tensor, real: Tensor) -> float:
    """Frechet distance between features (n, d) and (m, d); 0 is best."""
    return gaussian_frechet(*moments(samples), *moments(real))


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d) of features (n, d), in float64."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"moments need features (n >= 2, d), these are {tuple(features.shape)}")
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def gaussian_frechet(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> float:
    """Frechet distance of two Gaussians: the formula at the head of this file."""
    root = _psd_root(cov_1)
    # C_1^1/2 C_2 C_1^1/2 is symmetric and has the eigenvalues of C_1 C_2.
    cross = torch.linalg.eigvalsh(root @ cov_2.double() @ root).clamp(min=0).sqrt().sum()
    shift = (mean_1.double() - mean_2.double()).square().sum()
    return float(shift + cov_1.trace() + cov_2.trace() - 2 * cross)


def _psd_root(cov: Tensor) -> Tensor:
    """Symmetric square root; rounding makes tiny negative eigenvalues, which are zeros."""
    values, vectors = torch.linalg.eigh(cov.double())
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
