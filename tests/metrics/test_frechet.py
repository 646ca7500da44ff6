"""Frechet distance against closed forms."""

import pytest
import torch

from genkit.metrics.frechet import frechet_distance, gaussian_frechet, moments


def _covariance(d, seed):
    a = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T / d + 0.1 * torch.eye(d, dtype=torch.float64)


def test_commuting_covariances():
    """Diagonal: |m_1 - m_2|^2 + sum (s_1 - s_2)^2."""
    m1, m2 = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 5.0])
    s1, s2 = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 1.0, 0.5])
    value = gaussian_frechet(m1, torch.diag(s1**2), m2, torch.diag(s2**2))
    assert value == pytest.approx(5 + 5, abs=1e-9)


def test_optimal_linear_map():
    """C_2 = A C_1 A, A symmetric positive: the distance is tr((A - 1) C_1 (A - 1))."""
    c1, a = _covariance(6, 0), _covariance(6, 1)
    step = a - torch.eye(6, dtype=torch.float64)
    zero = torch.zeros(6)
    value = gaussian_frechet(zero, c1, zero, a @ c1 @ a)
    assert value == pytest.approx(float((step @ c1 @ step).trace()), abs=1e-9)
    naive = float((c1.sqrt().nan_to_num() - (a @ c1 @ a).sqrt().nan_to_num()).square().sum())
    assert abs(value - naive) > 0.01


def test_symmetric_and_zero_on_itself():
    c1, c2, m = _covariance(5, 2), _covariance(5, 3), torch.ones(5)
    there, back = gaussian_frechet(m, c1, 0 * m, c2), gaussian_frechet(0 * m, c2, m, c1)
    assert there == pytest.approx(back, abs=1e-10)
    assert gaussian_frechet(m, c1, m, c1) == pytest.approx(0, abs=1e-10)


def test_singular_covariances_are_fine():
    c1, c2 = torch.diag(torch.tensor([4.0, 0.0])), torch.diag(torch.tensor([0.0, 9.0]))
    assert gaussian_frechet(torch.zeros(2), c1, torch.zeros(2), c2) == pytest.approx(13, abs=1e-9)
    few = torch.randn(10, 30, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(few + 1, few) == pytest.approx(30, rel=1e-5)


def test_from_samples():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, 3, generator=rng)
    y = 2 * torch.randn(40_000, 3, generator=rng) + 1
    assert frechet_distance(x, y) == pytest.approx(3 + 3, rel=0.02)


def test_moments_are_unbiased_and_float64():
    mean, cov = moments(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    assert mean.dtype == cov.dtype == torch.float64
    assert torch.equal(cov, torch.tensor([[2.0, 4.0], [4.0, 8.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match="n >= 2"):
        moments(torch.zeros(1, 4))


def test_falls_with_n_at_equal_quality():
    """Why n must be equal: the bias of small n looks like a worse generator."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(4000, 48, generator=rng), torch.randn(4000, 48, generator=rng)
    assert frechet_distance(x[:200], y) > 3 * frechet_distance(x, y)
