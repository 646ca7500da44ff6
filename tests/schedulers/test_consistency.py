"""Consistency sampling of data N(0, s2), whose consistency map is known on every path.

f(x, t) = x sqrt(s2 / var(t)) with var(t) = alpha^2 s2 + sigma^2, so one step lands on N(0, s2),
and after re-noising to the level t the samples have the variance var(t).
"""

import pytest
import torch

from genkit.paths import EDM, VP, DiscreteVP, RectifiedFlow, TrigFlow
from genkit.sampling import sample
from genkit.schedulers.consistency import ConsistencyScheduler

S2 = 0.25
N = 40_000
PATHS = [RectifiedFlow(), TrigFlow(0.5), EDM(), VP(), DiscreteVP()]
each = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)


def variance(path, t):
    return path.alpha(t) ** 2 * S2 + path.sigma(t) ** 2


def exact(path, kind):
    """The exact consistency map as a network that predicts `kind`."""

    def evaluate(x, t):
        x_0 = x * torch.sqrt(S2 / variance(path, t[0]))
        return path.convert(x_0, x, t[0], "x_0", kind)

    return evaluate


def noise():
    return torch.randn(N, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@each
@pytest.mark.parametrize("kind", ["x_0", "velocity", "v_prediction"])
def test_one_step_from_pure_noise(path, kind):
    eps = noise()
    end = sample(exact(path, kind), ConsistencyScheduler(path.config(), kind), eps)
    t = torch.tensor(path.t_max, dtype=torch.float64)
    expected = path.start(eps) * torch.sqrt(S2 / variance(path, t))
    assert torch.allclose(end, expected, atol=1e-9)
    assert float(end.std()) == pytest.approx(S2**0.5, rel=0.01)


@each
def test_marginals_of_renoising(path):
    scheduler = ConsistencyScheduler(path.config(), "v_prediction", steps=4)
    stds = []
    generator = torch.Generator().manual_seed(1)
    keep = lambda i, t, x: stds.append(float(x.std())) or x  # noqa: E731
    sample(exact(path, "v_prediction"), scheduler, noise(), 4, generator, callback=keep)
    expected = variance(path, scheduler.levels[1:]).sqrt().tolist() + [S2**0.5]
    assert stds == pytest.approx(expected, rel=0.015)


def test_fresh_noise_is_independent_of_the_first():
    """Re-noising with the noise of the start would be the ODE, not this sampler."""
    scheduler = ConsistencyScheduler(RectifiedFlow().config(), "x_0", steps=2)
    scheduler.set_timesteps(2)
    eps, zero = noise(), torch.zeros(N, 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    x = scheduler.step(zero, scheduler.timesteps[0], eps, generator).prev_sample
    assert abs(float((x * eps).mean())) < 0.02
    assert float(x.std()) == pytest.approx(0.5, rel=0.02)


def test_tuple_gives_x_0_too():
    scheduler = ConsistencyScheduler(RectifiedFlow().config(), "velocity", steps=2)
    x, v = torch.full((1, 1), 2.0), torch.full((1, 1), 0.5)
    prev, x_0 = scheduler.step(v, scheduler.timesteps[0], x, return_dict=False)
    assert float(x_0) == 1.5
    assert not torch.equal(prev, x_0)


def test_a_list_of_generators_is_one_per_sample():
    scheduler = ConsistencyScheduler(RectifiedFlow().config(), "x_0", steps=2)
    zero = torch.zeros(2, 3)
    generators = [torch.Generator().manual_seed(i) for i in (5, 6)]
    x, _ = scheduler.step(zero, 1.0, zero, generators, return_dict=False)
    alone = torch.randn(1, 3, generator=torch.Generator().manual_seed(6))
    assert torch.equal(x[1:], 0.5 * alone)
