"""Same noise, same resamples."""

import pytest
import torch

from genkit.metrics.frechet import frechet_distance
from genkit.metrics.paired import bootstrap_interval, mse_same_noise, paired_bootstrap


def _gauss(n, seed, d=2):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def _mean_gap(samples, real):
    return float((samples.mean() - real.mean()).abs())


def test_mse_is_per_sample_and_a_mean_over_elements():
    a, b = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    b[1] = 3
    assert mse_same_noise(a, b).tolist() == [0, 9]
    with pytest.raises(ValueError, match="teacher's"):
        mse_same_noise(a, b[:1])


def test_an_obviously_better_one_always_wins():
    real = _gauss(300, 0)
    better, worse = _gauss(300, 1), _gauss(300, 2) + 2
    result = paired_bootstrap(frechet_distance, better, worse, real, 50)
    assert result.share == 1 and result.high < 0 and result.difference == pytest.approx(-8, rel=0.2)
    back = paired_bootstrap(frechet_distance, worse, better, real, 50)
    assert back.share == 0 and back.low > 0
    score = paired_bootstrap(lambda s, r: -_mean_gap(s, r), better, worse, real, 50, None, False)
    assert score.share == 1


def test_the_same_resamples_for_both():
    """b is a moved by a hair: unpaired, luck in the draw would decide; paired it never does."""
    real = _gauss(200, 0)
    a = _gauss(200, 1) + 1
    assert paired_bootstrap(_mean_gap, a, a + 0.001, real, 200).share == 1
    assert paired_bootstrap(_mean_gap, a, a, real, 20).share == 0.5


def test_real_samples_are_resampled_too():
    seen = []
    real = torch.arange(50.0).reshape(-1, 1)
    paired_bootstrap(lambda s, r: seen.append(r.sum()) or 0.0, real, real, real, 3)
    assert seen[0] == seen[1] and seen[0] != seen[2]


def test_repeatable_and_in_a_callers_hands():
    real, a, b = _gauss(100, 0), _gauss(100, 1), _gauss(100, 2)
    first = paired_bootstrap(_mean_gap, a, b, real, 20)
    assert first == paired_bootstrap(_mean_gap, a, b, real, 20)
    other = torch.Generator().manual_seed(7)
    assert first != paired_bootstrap(_mean_gap, a, b, real, 20, other)


def test_interval_has_the_width_theory_gives():
    """Mean of n samples minus mean of m: sd sqrt(1/n + 1/m), 95% is 3.92 of them."""
    x, y = _gauss(400, 0, 1), _gauss(400, 1, 1)
    result = bootstrap_interval(lambda s, r: float(s.mean() - r.mean()), x, y, 1000)
    assert result.low < result.value < result.high
    assert result.high - result.low == pytest.approx(3.92 * (2 / 400) ** 0.5, rel=0.15)


def test_bad_input():
    with pytest.raises(ValueError, match="as many"):
        paired_bootstrap(_mean_gap, _gauss(3, 0), _gauss(4, 0), _gauss(3, 0))
    with pytest.raises(ValueError, match="n_boot"):
        paired_bootstrap(_mean_gap, _gauss(3, 0), _gauss(3, 0), _gauss(3, 0), 0)
