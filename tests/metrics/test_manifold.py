"""Precision and recall: by hand on a line, and why neither goes alone."""

import pytest
import torch

from genkit.metrics.manifold import density_coverage, neighbour_radii, precision_recall


def _gauss(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_radii_leave_out_the_point_itself():
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_radii(points, 1).tolist() == [1, 1, 2, 4]
    assert neighbour_radii(points, 2).tolist() == [3, 2, 3, 6]


def test_by_hand_on_a_line():
    real = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    samples = torch.tensor([[0.5], [1.5], [30.0], [40.0]])
    # k = 1. Real balls: [-1, 1], [0, 2], [9, 11], [10, 12]. Samples': radii 1, 1, 10, 10.
    pair = precision_recall(samples, real, k=1)
    assert pair.precision == 0.5 and pair.recall == 0.5
    pair = density_coverage(samples, real, k=1)
    assert pair.density == 3 / 4 and pair.coverage == 0.5


def test_the_two_are_not_swapped():
    """Samples of one mode out of two lie among the real ones but cover half of them."""
    two = torch.cat([_gauss(200, 3, 0), _gauss(200, 3, 1) + 50])
    one = _gauss(400, 3, 2)
    pair = precision_recall(one, two)
    assert pair.precision > 0.85 and 0.35 < pair.recall < 0.55
    back = precision_recall(two, one)
    assert 0.35 < back.precision < 0.55 and back.recall > 0.8


def test_collapsed_samples_have_the_best_precision_and_no_recall():
    real = _gauss(500, 4, 0)
    honest, collapsed = _gauss(500, 4, 1), 0.05 * _gauss(500, 4, 1)
    assert precision_recall(collapsed, real).precision > 0.99
    assert precision_recall(honest, real).precision < 0.95
    assert precision_recall(collapsed, real).recall < 0.01
    assert precision_recall(honest, real).recall > 0.8


def test_coverage_sees_collapse_and_density_rewards_it():
    real = _gauss(500, 4, 0)
    honest = density_coverage(_gauss(500, 4, 1), real)
    collapsed = density_coverage(0.05 * _gauss(500, 4, 1), real)
    assert honest.density == pytest.approx(1, abs=0.15) and honest.coverage > 0.9
    assert collapsed.density > 1.2 and collapsed.coverage < 0.2


def test_k_must_fit():
    with pytest.raises(ValueError, match="k must lie in 1..2"):
        neighbour_radii(torch.zeros(3, 2), 3)
