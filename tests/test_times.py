"""Time distributions: every one on every path, and what each promises."""

import pytest
import torch

from genkit import times
from genkit.paths import EDM, PATHS, VP, RectifiedFlow, TrigFlow
from genkit.rng import Rng
from genkit.times import TIMES

every_path = pytest.mark.parametrize("path", [p() for p in PATHS.values()], ids=list(PATHS))
N = 20_000


def log_ratio(path, t):
    t = t.double()
    return torch.log(path.sigma(t) / path.alpha(t))


@every_path
@pytest.mark.parametrize("draw", TIMES.values(), ids=list(TIMES))
def test_every_distribution_on_every_path(draw, path):
    t = draw(path, (64, 3), Rng(0, "t"))
    assert t.shape == (64, 3) and t.dtype == torch.float32
    slack = 1e-6 * path.t_max
    assert (t >= path.t_min - slack).all() and (t <= path.t_max + slack).all()
    assert t.std() > 0
    assert torch.equal(t, draw(path, (64, 3), Rng(0, "t")))
    assert not torch.equal(t, draw(path, (64, 3), Rng(1, "t")))


def test_names_are_functions():
    assert all(getattr(times, name) is draw for name, draw in TIMES.items())


def test_uniform():
    t = TIMES["uniform"](RectifiedFlow(), (N,), Rng(0), low=0.2, high=0.6)
    assert 0.2 <= t.min() and t.max() < 0.6
    assert abs(t.mean() - 0.4) < 0.003 and abs(t.std() - 0.4 / 12**0.5) < 0.003


def test_logit_normal():
    t = TIMES["logit_normal"](RectifiedFlow(), (N,), Rng(0), mean=-0.4, std=1.2)
    logit = torch.logit(t.double())
    assert abs(logit.mean() + 0.4) < 0.03 and abs(logit.std() - 1.2) < 0.03


def test_shifted_is_esser_eq_23():
    u = Rng(0).uniform((9,))
    t = TIMES["shifted"](RectifiedFlow(), (9,), Rng(0), shift=3.0)
    torch.testing.assert_close(t, 3 * u / (1 + 2 * u))
    assert torch.equal(TIMES["shifted"](RectifiedFlow(), (9,), Rng(0), shift=1.0), u)
    t = TIMES["shifted"](RectifiedFlow(), (N,), Rng(0), shift=3.0, low=0.2, high=0.6)
    back = t / (3 - 2 * t)
    assert back.min() >= 0.2 and back.max() < 0.6
    assert back.mean().item() == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("path", [RectifiedFlow(), TrigFlow(), EDM(), VP(t_min=1e-6)])
def test_log_normal_means_the_same_noise_on_every_path(path):
    ratio = log_ratio(path, TIMES["log_normal"](path, (N,), Rng(0), mean=-1.2, std=1.2))
    assert abs(ratio.mean() + 1.2) < 0.03 and abs(ratio.std() - 1.2) < 0.03


def test_student_t_quantiles():
    """T with 2 degrees of freedom: its upper quartile is sqrt(2/3), its 95% point 2.9200."""
    path = EDM(1e-9, 1e9)
    draw = (log_ratio(path, TIMES["student_t"](path, (N,), Rng(0), mean=0.5, std=0.2)) - 0.5) / 0.2
    got = torch.quantile(draw, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).double())
    want = torch.tensor([-2.92, -0.8165, 0.0, 0.8165, 2.92]).double()
    torch.testing.assert_close(got, want, atol=0.1, rtol=0)
