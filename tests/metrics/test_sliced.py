"""Sliced Wasserstein against closed forms and brute force."""

import pytest
import torch

from genkit.metrics.sliced import directions, sliced_wasserstein, wasserstein2_1d


def _gauss(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_shift_in_1d_is_the_distance():
    x = _gauss(500, 1, 0)
    assert sliced_wasserstein(x + 3, x) == pytest.approx(3, abs=1e-5)


def test_a_shift_in_d_dimensions():
    """E (theta . v)^2 = |v|^2 / d, so SW_2 of a shift v is |v| / sqrt(d)."""
    x = _gauss(500, 4, 0)
    value = sliced_wasserstein(x + torch.tensor([2.0, 0, 0, 0]), x, n_projections=20_000)
    assert value == pytest.approx(1, rel=0.02)


def test_a_change_of_scale():
    """W_2 of N(0, 1) and N(0, s^2) on a line is |s - 1|; in 2-D every direction agrees."""
    x = _gauss(20_000, 2, 0)
    assert sliced_wasserstein(3 * x, _gauss(20_000, 2, 1)) == pytest.approx(2, rel=0.03)


def test_unequal_sizes_are_exact():
    """Repeating every sample does not change a distribution."""
    x, y = _gauss(6, 1, 0).T, _gauss(4, 1, 1).T
    common = wasserstein2_1d(x.repeat_interleave(2, 1), y.repeat_interleave(3, 1))
    assert wasserstein2_1d(x, y) == pytest.approx(common, abs=1e-6)
    assert wasserstein2_1d(y, x) == pytest.approx(common, abs=1e-6)
    by_hand = wasserstein2_1d(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0, 3.0]]))
    assert by_hand == pytest.approx(1 / 6 * 1 + 1 / 3 * 4)


def test_order_of_samples_does_not_matter():
    x, y = _gauss(50, 3, 0), _gauss(50, 3, 1)
    assert sliced_wasserstein(x.flip(0), y) == pytest.approx(sliced_wasserstein(x, y), abs=1e-6)
    assert sliced_wasserstein(x, x.flip(0)) == pytest.approx(0, abs=1e-6)


def test_directions_are_fixed_unit_and_not_all_positive():
    theta = directions(5, 1000, 0)
    assert torch.allclose(theta.norm(dim=1), torch.ones(1000))
    assert theta.mean(0).abs().max() < 0.06
    directions.cache_clear()
    assert torch.equal(theta, directions(5, 1000, 0))
    assert not torch.equal(theta, directions(5, 1000, 1))


def test_bad_input():
    with pytest.raises(ValueError, match="samples are"):
        sliced_wasserstein(torch.zeros(3, 1, 8, 8), torch.zeros(3, 64))
    with pytest.raises(ValueError, match="between 0 and 3"):
        sliced_wasserstein(torch.zeros(0, 2), torch.zeros(3, 2))
