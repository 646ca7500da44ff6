"""MMD: closed forms, unbiasedness, scale of KID."""

import math

import pytest
import torch

from genkit.metrics.kernel import cubic, kid, median_distance, mmd2, rbf_mmd2


def _gauss(n, d, seed, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_three_points_by_hand():
    """Kernel x y in 1-D: off-diagonal means are products, no point meets itself."""
    x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [5.0]])
    assert mmd2(x, y, lambda a, b: a @ b.T) == pytest.approx(3 + 10 - 2 * (4 * 7 / 4))


def test_unbiased_under_equal_distributions():
    values = torch.tensor(
        [rbf_mmd2(_gauss(40, 5, 2 * i), _gauss(60, 5, 2 * i + 1), 2.0) for i in range(200)]
    )
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    # The biased (V-) statistic is off by about (1/40 + 1/60)(1 - E k): far outside this.
    assert error < 0.001 and (values < 0).any()


def test_gaussians_in_closed_form():
    """E k(x, y) of N(a, 1), N(b, 1) in 1-D is s / sqrt(s^2 + 2) exp(-(a - b)^2 / 2 (s^2 + 2))."""
    s, shift = 1.5, 1.0
    top = s / math.sqrt(s**2 + 2)
    expected = 2 * top - 2 * top * math.exp(-(shift**2) / (2 * (s**2 + 2)))
    value = rbf_mmd2(_gauss(4000, 1, 0), _gauss(3000, 1, 1, shift), s)
    assert value == pytest.approx(expected, rel=0.1)


def test_blocks_change_nothing():
    x, y = _gauss(2500, 3, 0), _gauss(2100, 3, 1)
    whole = cubic(x.double(), x.double())
    inside = (whole.sum() - whole.diagonal().sum()) / (2500 * 2499)
    other = cubic(y.double(), y.double())
    outside = (other.sum() - other.diagonal().sum()) / (2100 * 2099)
    between = cubic(x.double(), y.double()).mean()
    assert mmd2(x, y, cubic) == pytest.approx(float(inside + outside - 2 * between), abs=1e-10)


def test_kid_does_not_depend_on_the_scale_of_features():
    x, y = _gauss(300, 8, 0, 0.5), _gauss(200, 8, 1)
    value = kid(x, y)
    assert kid(100 * x + 7, 100 * y + 7) == pytest.approx(value, rel=1e-4)
    assert value > 0.1
    assert mmd2(100 * x, 100 * y, cubic) > 1e6


def test_kid_standardises_by_the_real_ones():
    """Standardised each by itself, samples of twice the spread would look perfect."""
    x, y = 2 * _gauss(2000, 4, 0), _gauss(2000, 4, 1)
    assert kid(x, y) > 0.5


def test_median_distance():
    assert median_distance(torch.tensor([[0.0], [1.0], [10.0]])) == 9


def test_bad_input():
    with pytest.raises(ValueError, match="two samples"):
        rbf_mmd2(torch.zeros(1, 2), torch.zeros(5, 2), 1.0)
    with pytest.raises(ValueError, match="constant"):
        kid(torch.randn(5, 2), torch.ones(5, 2))
