"""Causal denoisers on a sequence whose answer is known: x_i = rho x_{i-1} + sqrt(1 - rho^2) e."""

import pytest
import torch

from genkit.denoisers.autoregressive import autoregressive
from genkit.denoisers.base import Guided
from genkit.denoisers.causal import CausalDenoiser
from genkit.denoisers.repathed import Repathed
from genkit.hub import make_scheduler
from genkit.paths import DiscreteVP, RectifiedFlow, TrigFlow
from genkit.sampling import Sampler

RHO = 0.8


def sequences(n, f, seed=0):
    """(x_0 (n, f, 1, 1, 2) of the sequence, eps), float64."""
    g = torch.Generator().manual_seed(seed)
    e = torch.randn(n, f, 1, 1, 2, generator=g, dtype=torch.float64)
    frames = [e[:, 0]]
    for i in range(1, f):
        frames.append(RHO * frames[-1] + (1 - RHO**2) ** 0.5 * e[:, i])
    return torch.stack(frames, 1), torch.randn(e.shape, generator=g, dtype=torch.float64)


def scheduler(denoiser, steps, **given):
    sampler = Sampler(steps, **given)
    return make_scheduler(sampler, denoiser.path, denoiser.kind, denoiser.time_scale)


@pytest.mark.parametrize("path", [RectifiedFlow(), TrigFlow(), DiscreteVP()])
def test_the_velocity_at_independent_levels_is_that_of_the_joint_gaussian(path):
    """By conditioning the whole covariance, which the filter never forms."""
    f = 4
    x_0, eps = sequences(3, f)
    t = path.time(torch.rand(3, f, generator=torch.Generator().manual_seed(1)).double())
    x_t = path.add_noise(x_0, eps, t)
    value = autoregressive(path, RHO).predict(x_t, t, {}, "x_0")
    place = torch.arange(f)
    cov = RHO ** (place[:, None] - place).abs().double()
    for row in range(3):
        alpha, sigma = path.alpha(t[row]), path.sigma(t[row])
        for i in range(f):
            seen = slice(0, i + 1)
            a = alpha[seen]
            both = a[:, None] * cov[seen, seen] * a + torch.diag(sigma[seen] ** 2)
            gain = torch.linalg.solve(both, a * cov[i, seen])
            mean = torch.einsum("k,kchw->chw", gain, x_t[row, seen])
            assert torch.allclose(value[row, i], mean, atol=1e-9), (row, i)


def test_given_the_clean_past_a_frame_is_its_own_gaussian():
    """x_0 of the ODE from pure noise is rho x_{i-1} + sqrt(1 - rho^2) eps, for every frame."""
    denoiser = autoregressive(RectifiedFlow(), RHO)
    x_0, eps = sequences(5, 4)
    cond = denoiser.given(x_0, {}, eps)
    x, times = eps, torch.linspace(1, 0, 401, dtype=torch.float64)
    for t, s in zip(times, times[1:], strict=False):
        x = denoiser.ode_step(x, t.expand(5, 4), s.expand(5, 4), cond, "heun")
    before = torch.cat([torch.zeros_like(x_0[:, :1]), x_0[:, :-1]], 1)
    width = torch.tensor([1.0] + 3 * [(1 - RHO**2) ** 0.5]).double().view(4, 1, 1, 1)
    assert torch.allclose(x, RHO * before + width * eps, atol=1e-4)


def test_without_the_past_the_end_of_a_frame_is_another_one():
    """The trap of moving all frames at once: the context of a frame moves with it."""
    denoiser = autoregressive(RectifiedFlow(), RHO)
    x_0, eps = sequences(50, 4)
    t = torch.full((50, 4), 0.5).double()
    x_t = denoiser.path.add_noise(x_0, eps, t)
    moved = {
        name: denoiser.ode_step(x_t, t, t * 0.5, cond, "heun")
        for name, cond in (("alone", {}), ("given", denoiser.given(x_0, {}, eps)))
    }
    gap = (moved["alone"] - moved["given"]).square().mean((0, 2, 3, 4)).sqrt()
    assert gap[0] < 1e-9 and gap[1:].min() > 0.02


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_roll_outs_are_stationary(noise):
    """Variance 1 at every frame and correlation rho, or with a noised context, the filter's."""
    denoiser = autoregressive(RectifiedFlow(), RHO, noise)
    eps = torch.randn(4000, 24, 1, 1, 2, generator=torch.Generator().manual_seed(2)).double()
    x = denoiser.sample(eps, {}, scheduler(denoiser, 20, order=3)).flatten(2)
    late = x[:, 14:]
    assert x.var((0, 2)).sub(1).abs().max() < 0.06
    lag = (late[:, 1:] * late[:, :-1]).mean()
    lag = lag.item()
    if noise == 0:
        assert lag == pytest.approx(RHO, abs=0.01)
        twice = (late[:, 2:] * late[:, :-2]).mean()
        assert twice.item() == pytest.approx(RHO**2, abs=0.015)
    else:
        assert 0.3 < lag < RHO - 0.02


def test_broken_twin_a_roll_out_that_sees_the_frame_before_the_last():
    denoiser = autoregressive(RectifiedFlow(), RHO)
    plain = denoiser.network.cache

    def late(batch, slack=0):
        cache = plain(batch, slack)
        commit = cache.commit
        cache.commit = lambda frames: commit(frames) if cache.length == 0 else None
        return cache

    denoiser.network.cache = late
    eps = torch.randn(2000, 12, 1, 1, 2, generator=torch.Generator().manual_seed(2)).double()
    x = denoiser.sample(eps, {}, scheduler(denoiser, 20, order=3)).flatten(2)
    assert (x[:, 9:-1] * x[:, 10:]).mean() < RHO - 0.1


def test_simulate_is_the_roll_out_and_its_gradient_passes_one_evaluation():
    denoiser = autoregressive(RectifiedFlow(), RHO)
    sampler = Sampler(1)
    made = scheduler(denoiser, 1)
    _, eps = sequences(4, 3)
    x = denoiser.simulate(eps, {}, made, sampler, 0)
    assert torch.allclose(x, denoiser.sample(eps, {}, made, 1))
    (slope,) = torch.autograd.grad(x[:, 1].sum(), denoiser.network.rho)
    # One step from pure noise gives the mean, rho x_{i-1}, whose x_{i-1} carries no gradient.
    assert slope == pytest.approx(x[:, 0].sum().item(), rel=1e-6)


def test_stochastic_students_of_several_steps_roll_out():
    denoiser = autoregressive(RectifiedFlow(), RHO)
    made = scheduler(denoiser, 3, stochastic=True)
    _, eps = sequences(4, 3)
    draws = lambda: [torch.Generator().manual_seed(i) for i in range(4)]  # noqa: E731
    one = denoiser.sample(eps.float(), {}, made, 3, draws())
    assert torch.equal(one, denoiser.sample(eps.float(), {}, made, 3, draws()))
    assert not torch.equal(one, denoiser.sample(eps.float(), {}, made, 3))
    stopped = denoiser.simulate(eps.float(), {}, made, Sampler(3, stochastic=True), 2, draws())
    assert torch.allclose(stopped, one, atol=1e-6)


def test_the_first_frame_takes_the_steps_of_the_opening():
    denoiser = autoregressive(RectifiedFlow(), RHO)
    made = scheduler(denoiser, 1, stochastic=True, opening=3)
    plain = scheduler(denoiser, 1, stochastic=True)
    _, eps = sequences(4, 3)
    draws = lambda: [torch.Generator().manual_seed(i) for i in range(4)]  # noqa: E731
    one = denoiser.sample(eps.float(), {}, made, 1, draws())
    clips, fresh = denoiser.rollout(4), draws()
    first = denoiser.sample(eps.float()[:, :1], {}, plain, 3, fresh, clips=clips)
    others = denoiser.sample(eps.float()[:, 1:], {}, plain, 1, fresh, clips=clips)
    assert torch.equal(one, torch.cat([first, others], 1))
    assert not torch.allclose(one, denoiser.sample(eps.float(), {}, plain, 1, draws()))
    # What goes on from frames has no first one, and who asks for more steps has them in all.
    begun = [denoiser.rollout(4) for _ in range(2)]
    for each in begun:
        each.begin(eps.float(), eps.float(), {})
    on = [
        denoiser.sample(eps.float(), {}, s, 1, draws(), clips=c)
        for s, c in zip((made, plain), begun, strict=True)
    ]
    assert torch.equal(*on)
    many = [denoiser.sample(eps.float(), {}, each, 5, draws()) for each in (made, plain)]
    assert torch.equal(*many)


def test_simulate_goes_as_far_into_the_opening_as_into_a_frame():
    denoiser = autoregressive(RectifiedFlow(), RHO)
    sampler = Sampler(2, stochastic=True, opening=3)
    made = make_scheduler(sampler, denoiser.path, denoiser.kind, denoiser.time_scale)
    assert sampler.stops == 6
    _, eps = sequences(4, 3)
    draws = lambda: [torch.Generator().manual_seed(i) for i in range(4)]  # noqa: E731
    whole = denoiser.simulate(eps.float(), {}, made, sampler, 5, draws())
    assert torch.allclose(whole, denoiser.sample(eps.float(), {}, made, 2, draws()), atol=1e-6)
    told, raw = [], denoiser.raw
    denoiser.raw = lambda x, t, cond, s=None: (
        told.append(round(float(t.flatten()[0]), 3)) or raw(x, t, cond, s)
    )
    for stop in range(6):
        del told[:]
        denoiser.simulate(eps.float()[:, :2], {}, made, sampler, stop, draws())
        noisy = [t for t in told if t > 0.3]
        first, second = [1, 0.667, 0.333][: stop % 3 + 1], [1, 0.5][: stop % 2 + 1]
        assert noisy == first + second, stop


def test_what_stands_around_a_causal_denoiser_keeps_its_levels():
    inner = autoregressive(RectifiedFlow(), RHO)
    x_0, eps = sequences(2, 3)
    for outer in (Repathed(inner, TrigFlow()), Guided(inner, 2.0, {})):
        assert outer.levels == 2
        assert set(outer.given(x_0, {}, eps)) == {"past", "past_timestep"}
    with pytest.raises(ValueError, match="rho is 1"):
        autoregressive(RectifiedFlow(), 1)


def test_times_of_frames_have_exact_derivatives():
    denoiser = autoregressive(RectifiedFlow(), RHO)
    x_0, eps = sequences(3, 4)
    cond = denoiser.given(x_0, {}, eps)
    t = 0.1 + 0.8 * torch.rand(3, 4, generator=torch.Generator().manual_seed(3)).double()
    x_t = denoiser.path.add_noise(x_0, eps, t)
    moves = (eps - x_0, torch.rand(3, 4, generator=torch.Generator().manual_seed(4)).double())
    _, exact = denoiser.jvp(x_t, t, cond, "velocity", *moves)
    _, near = denoiser.jvp(x_t, t, cond, "velocity", *moves, backend="difference")
    assert torch.allclose(exact, near, atol=1e-6)


def test_the_context_noise_is_unit_and_not_the_frames_own():
    denoiser = autoregressive(RectifiedFlow(), RHO, 0.4)
    assert isinstance(denoiser, CausalDenoiser)
    eps = torch.randn(200, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = denoiser.context(torch.zeros_like(eps), eps) / 0.4
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert (noise * eps).mean().abs() < 0.02
