"""The analytic denoisers: golden closed forms, densities, exact flows, reflow and consistency."""

import math

import pytest
import torch

from genkit.denoisers.analytic import Gaussian, Mixture
from genkit.paths import EDM, PATHS, VP, RectifiedFlow, TrigFlow, expand
from genkit.terms import consistency, flow_matching, squared

every_path = pytest.mark.parametrize("path", [p() for p in PATHS.values()], ids=list(PATHS))
M, C = 1.3, 0.5


def close(a, b, atol=1e-12, rtol=1e-10):
    torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def times(path, n: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return path.time(torch.linspace(low, high, n, dtype=torch.float64))


def mixture(path, shape=(2,), seed: int = 4) -> Mixture:
    """Six components of unequal width and weight in three classes."""
    std = torch.tensor([0.2, 0.3, 0.4, 0.5, 0.3, 0.2])
    weights = torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 1.0])
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    return Mixture(path, 1.5 * doubles(6, *shape, seed=seed), std, weights, labels)


# ---------------------------------------------------------------- section 0: golden closed forms


def test_golden_ve():
    t = torch.tensor([0.002, 0.5, 3.0, 80.0], dtype=torch.float64)
    x, exact = doubles(4, 1), Gaussian(EDM(), M, C)
    at = t[:, None]
    close(exact.predict(x, t, {}, "x_0"), M + (x - M) * C**2 / (C**2 + at**2))
    shrink = torch.sqrt((C**2 + 0.002**2) / (C**2 + at**2))
    close(exact.consistency(x, t, {}), M + (x - M) * shrink)


def test_golden_rectified_flow():
    t, r = torch.tensor([0.2, 0.7, 1.0]).double(), torch.tensor([0.0, 0.4, 0.9]).double()
    z, exact = doubles(3, 1), Gaussian(RectifiedFlow(), 0.0, C)
    at, there = t[:, None], r[:, None]
    var, var_r = (1 - at) ** 2 * C**2 + at**2, (1 - there) ** 2 * C**2 + there**2
    close(exact.predict(z, t, {}, "velocity"), z * (at - (1 - at) * C**2) / var)
    close(exact.flow_map(z, t, r), z * torch.sqrt(var_r / var))
    mean = z * (1 - torch.sqrt(var_r / var)) / (at - there)
    close(exact.predict(z, t, {}, "mean_velocity", r), mean)


def test_golden_trigflow():
    t = torch.tensor([0.1, 0.8, math.pi / 2]).double()
    x, exact = doubles(3, 1), Gaussian(TrigFlow(), 0.0, C)
    var = C**2 * torch.cos(t[:, None]) ** 2 + torch.sin(t[:, None]) ** 2
    close(exact.consistency(x, t, {}), C * x / torch.sqrt(var))
    close(exact.predict(x, t, {}, "x_0"), C**2 * torch.cos(t[:, None]) * x / var)


# ------------------------------------------------------------------- densities, scores, velocities


@every_path
@pytest.mark.parametrize("make", [lambda p: Gaussian(p, M, C), mixture], ids=["one", "many"])
def test_score_is_the_densitys_gradient_and_fixes_every_kind(path, make):
    exact, t = make(path), times(path, 9)
    x = (doubles(9, 2) * (1 + path.sigma(t)[:, None])).requires_grad_()
    (score,) = torch.autograd.grad(exact.log_density(x, t).sum(), x)
    x = x.detach()
    close(exact.score(x, t), score, rtol=1e-8)
    alpha, sigma = expand(path.alpha(t), x), expand(path.sigma(t), x)
    close(exact.predict(x, t, {}, "eps"), -sigma * score, atol=1e-9, rtol=1e-7)
    x_0 = exact.predict(x, t, {}, "x_0")
    close(alpha * x_0, x + sigma**2 * score, atol=1e-7, rtol=1e-7)


@every_path
def test_mixture_is_bayes_by_quadrature(path):
    """E[x_0 | x_t] and log p_t of a 1-D mixture, by summing over a fine grid of x_0."""
    exact, t = mixture(path, (1,)), times(path, 7, 0.15, 0.6)
    x_0 = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    x_t = path.alpha(t)[:, None] * doubles(7, 1) + path.sigma(t)[:, None] * doubles(7, 1, seed=1)
    std, weight = exact.std, exact.log_weights[-1].exp()
    prior = weight / std * torch.exp(-0.5 * ((x_0[:, None] - exact.means[:, 0]) / std) ** 2)
    prior = prior.sum(1) / math.sqrt(2 * math.pi)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    likelihood = torch.exp(-0.5 * ((x_t - alpha * x_0) / sigma) ** 2)
    likelihood = likelihood / (sigma * math.sqrt(2 * math.pi))
    joint = likelihood * prior * (x_0[1] - x_0[0])
    close(exact.log_density(x_t, t), torch.log(joint.sum(1)), atol=1e-6)
    mean = (joint * x_0).sum(1) / joint.sum(1)
    close(exact.predict(x_t, t, {}, "x_0")[:, 0], mean, atol=1e-6)


@every_path
@pytest.mark.parametrize("cond", [{}, {"label": torch.tensor([0, 1, 2, 0, 1])}], ids=["all", "of"])
def test_one_width_for_all_is_the_same_as_equal_widths(path, cond):
    """The quick way of a number against the general one of a tensor."""
    means, labels = doubles(4, 2, 3), torch.tensor([0, 1, 1, 0])
    quick, slow = (
        Mixture(path, means, std, torch.tensor([1.0, 2, 3, 4]), labels)
        for std in (0.3, torch.full((4,), 0.3, dtype=torch.float64))
    )
    x, t = doubles(5, 2, 3), times(path, 5, 0.1, 1)
    for kind in ("x_0", "velocity"):
        got = quick.predict(x, t, cond, kind)
        close(got, slow.predict(x, t, cond, kind), atol=1e-8, rtol=1e-6)
    for name in ("score", "log_density", "responsibilities"):
        close(getattr(quick, name)(x, t, cond), getattr(slow, name)(x, t, cond), 1e-8, 1e-6)


@every_path
def test_one_component_is_the_gaussian(path):
    mean = doubles(2, 3)
    one, many = Gaussian(path, mean, C), Mixture(path, torch.stack([mean, mean]), C)
    x, t, s = doubles(5, 2, 3), times(path, 5, 0.3, 1), times(path, 5, 0.0, 0.8)
    for kind in ("x_0", "eps", "velocity", "v_prediction"):
        close(many.predict(x, t, {}, kind), one.predict(x, t, {}, kind), atol=1e-7, rtol=1e-7)
    close(many.log_density(x, t), one.log_density(x, t), rtol=1e-9)
    close(many.flow_map(x, t, s), one.flow_map(x, t, s), atol=1e-5, rtol=1e-5)


def test_density_integrates_to_one():
    exact = mixture(RectifiedFlow(), (1,))
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    for t in (0.0, 0.3, 1.0):
        density = exact.log_density(grid[:, None], torch.full_like(grid, t)).exp()
        assert abs(float(density.sum() * (grid[1] - grid[0])) - 1) < 1e-6


# -------------------------------------------------------------------------------- exact flow maps


@every_path
def test_flow_follows_the_velocity(path):
    exact = Gaussian(path, M, C)
    x, t = doubles(6, 2), times(path, 6, 0.2, 1)
    s = times(path, 6, 0.1, 0.8).requires_grad_()
    x_s = exact.flow_map(x, t, s)
    slope = torch.stack(
        [torch.autograd.grad(x_s[:, i].sum(), s, retain_graph=True)[0] for i in (0, 1)], 1
    )
    close(slope, exact.predict(x_s.detach(), s.detach(), {}, "velocity"), rtol=1e-8)
    close(exact.flow_map(x, t, t), x)
    there = exact.flow_map(x, t, times(path, 6, 0, 0.3))
    close(exact.flow_map(x_s.detach(), s.detach(), times(path, 6, 0, 0.3)), there, rtol=1e-8)


@every_path
def test_mixture_flow_carries_the_density(path):
    """log p_s(x_s) = log p_t(x_t) - log |dx_s / dx_t|, which holds for the exact ODE alone."""
    exact = mixture(path, (1,))
    t, s = times(path, 8, 0.9, 1.0), times(path, 8, 0.0, 0.7)
    x = (path.sigma(t)[:, None] * doubles(8, 1)).requires_grad_()
    x_s = exact.flow_map(x, t, s, steps=32)
    (jacobian,) = torch.autograd.grad(x_s.sum(), x)
    carried = exact.log_density(x, t) - torch.log(jacobian[:, 0].abs())
    close(exact.log_density(x_s, s), carried, atol=2e-5, rtol=0)


@every_path
@pytest.mark.parametrize("make", [lambda p: Gaussian(p, M, C), mixture], ids=["one", "many"])
def test_mean_velocity(path, make):
    exact, x = make(path), doubles(4, 2)
    t, s = times(path, 4, 0.3, 1), times(path, 4, 0.1, 0.5)
    u = exact.predict(x, t, {}, "mean_velocity", s)
    x_s = x - expand(t - s, x) * u
    close(x_s, exact.flow_map(x, t, s, {}), atol=1e-9)
    r = times(path, 4, 0.0, 0.2)
    rest = expand(s - r, x) * exact.predict(x_s, s, {}, "mean_velocity", r)
    whole = expand(t - r, x) * exact.predict(x, t, {}, "mean_velocity", r)
    close(x - x_s + rest, whole, atol=1e-4, rtol=1e-4)  # the semigroup, up to Runge-Kutta's error
    velocity = exact.predict(x, t, {}, "velocity")
    close(exact.predict(x, t, {}, "mean_velocity", t), velocity)


@every_path
def test_meanflow_identity(path):
    """u = v - (t - s)(v . du/dx + du/dt), arXiv 2505.13447 eq. 6, by the denoiser's own jvp."""
    exact, x = Gaussian(path, M, C), doubles(4, 2)
    t, s = times(path, 4, 0.4, 1), times(path, 4, 0.1, 0.3)
    v = exact.predict(x, t, {}, "velocity")
    u, du = exact.jvp(x, t, {}, "mean_velocity", v, torch.ones_like(t), s)
    close(u, v - expand(t - s, x) * du, atol=1e-9, rtol=1e-8)


def test_mixture_flow_from_noise_gives_the_data():
    exact = mixture(RectifiedFlow())
    noise = doubles(1000, 2)
    x = exact.flow_map(noise, torch.ones(1000).double(), torch.zeros(1000).double(), steps=16)
    fresh, _ = exact.draw(20_000, torch.Generator().manual_seed(1))
    assert (x.mean(0) - fresh.mean(0)).abs().max() < 0.2
    assert (x.T.cov() - fresh.T.cov()).abs().max() < 0.2


def test_mean_velocity_needs_both_times():
    exact, x, t = Gaussian(RectifiedFlow(), M, C), doubles(2, 1), torch.ones(2).double()
    with pytest.raises(ValueError, match="give s exactly when"):
        exact.predict(x, t, {}, "mean_velocity")
    with pytest.raises(ValueError, match="give s exactly when"):
        exact.predict(x, t, {}, "x_0", t)


# ---------------------------------------------------------------------------- conditions and draws


def test_labels_select_components():
    whole, path = mixture(VP()), VP()
    x, t = doubles(3, 2), times(path, 3, 0.2, 0.7)
    for label in range(3):
        inside = slice(2 * label, 2 * label + 2)
        weights = whole.log_weights[-1].exp()[inside]
        part = Mixture(path, whole.means[inside], whole.std[inside], weights)
        cond = {"label": torch.full((3,), label)}
        close(whole.predict(x, t, cond, "x_0"), part.predict(x, t, {}, "x_0"), rtol=1e-8)
        close(whole.log_density(x, t, cond), part.log_density(x, t), rtol=1e-8)
        assert (whole.responsibilities(x, t, cond)[:, inside].sum(1) > 1 - 1e-12).all()
    none = {"label": torch.tensor([3, 3, 3])}
    close(whole.predict(x, t, none, "eps"), whole.predict(x, t, {}, "eps"))
    mixed = whole.predict(x, t, {"label": torch.tensor([0, 1, 3])}, "x_0")
    close(mixed[1:2], whole.predict(x[1:2], t[1:2], {"label": torch.tensor([1])}, "x_0"))


def test_draws():
    exact = mixture(RectifiedFlow())
    x, component = exact.draw(20_000, torch.Generator().manual_seed(0))
    share = torch.bincount(component, minlength=6) / 20_000
    close(share.double(), exact.log_weights[-1].exp(), atol=0.02)
    spread = torch.stack([(x - exact.means[component])[component == i].std() for i in range(6)])
    close(spread, exact.std, atol=0.02)
    one = Gaussian(RectifiedFlow(), M, C).draw(20_000, (1,), torch.Generator().manual_seed(0))
    assert abs(one.mean() - M) < 0.02 and abs(one.std() - C) < 0.02


def test_what_a_mixture_refuses():
    means, path = doubles(3, 2), RectifiedFlow()
    with pytest.raises(ValueError, match=r"weights has shape \(2,\); 3 means need \(3,\)"):
        Mixture(path, means, 0.1, torch.ones(2))
    with pytest.raises(ValueError, match="no component has the label 1"):
        Mixture(path, means, 0.1, labels=torch.tensor([0, 2, 2]))
    x = doubles(2, 2)
    with pytest.raises(ValueError, match="made without labels"):
        Mixture(path, means, 0.1).predict(x, torch.ones(2), {"label": torch.zeros(2).long()}, "x_0")
    with pytest.raises(ValueError, match="one time per sample"):
        Mixture(path, means, 0.1).predict(x, torch.ones(2, 2), {}, "x_0")


def test_a_gaussian_takes_times_per_frame():
    exact, x, t = Gaussian(RectifiedFlow(), M, C), doubles(2, 3, 4), torch.rand(2, 3).double()
    rows = exact.predict(x.flatten(0, 1), t.flatten(), {}, "x_0").view_as(x)
    close(exact.predict(x, t, {}, "x_0"), rows)


@every_path
def test_float32_is_close_to_float64(path):
    exact, t = mixture(path), times(path, 6, 0.02, 1)
    x = path.alpha(t)[:, None] * doubles(6, 2) + path.sigma(t)[:, None] * doubles(6, 2, seed=1)
    single = exact.predict(x.float(), t.float(), {}, "x_0")
    assert single.dtype == torch.float32
    close(single.double(), exact.predict(x, t, {}, "x_0"), atol=2e-3, rtol=1e-3)


def test_gradients_reach_inputs():
    exact, t = mixture(RectifiedFlow()), torch.tensor([0.3, 0.8]).double().requires_grad_()
    x = doubles(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, t: exact.predict(x, t, {}, "x_0"), (x, t))


# ------------------------------------------------------------------------------ section 1: reflow


def coupling(n: int = 64):
    """Pairs of the exact teacher: x_0 = m + c eps."""
    eps = doubles(n, 1)
    ones, path = torch.ones(n).double(), RectifiedFlow()
    x_0 = Gaussian(path, M, C).flow_map(eps, ones, torch.zeros_like(ones))
    close(x_0, M + C * eps)
    return path, x_0, eps


def reflowed(x, t):
    """v*(x, t), the minimiser of the reflow loss: section 1's with time reversed."""
    at = expand(t, x)
    return -M + (1 - C) * (x - (1 - at) * M) / ((1 - at) * C + at)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_reflow_loss_is_zero_under_its_coupling(t):
    path, x_0, eps = coupling()
    t = torch.full((64,), t, dtype=torch.float64)
    x_t = path.add_noise(x_0, eps, t)
    assert flow_matching(reflowed(x_t, t), x_0, eps, path, t).max() < 1e-28


def test_independent_coupling_leaves_a_residual():
    """The same loss with independent pairs cannot fall below c^2 / V, its conditional variance."""
    n, path = 400_000, RectifiedFlow()
    x_0, eps, t = M + C * doubles(n, 1), doubles(n, 1, seed=1), torch.full((n,), 0.6).double()
    x_t = path.add_noise(x_0, eps, t)
    best = Gaussian(path, M, C).predict(x_t, t, {}, "velocity")
    floor = C**2 / (0.4**2 * C**2 + 0.6**2)
    assert abs(flow_matching(best, x_0, eps, path, t).mean() - floor) < 0.01 * floor
    assert flow_matching(reflowed(x_t, t), x_0, eps, path, t).mean() > 1.05 * floor


def test_one_euler_step_of_the_reflowed_is_exact():
    _, x_0, eps = coupling()
    one = torch.ones(64).double()
    close(eps - reflowed(eps, one), x_0, atol=1e-15)
    euler = eps - Gaussian(RectifiedFlow(), M, C).predict(eps, one, {}, "velocity")
    assert (euler - x_0).abs().mean() > 0.3, "the teacher's own single step is not"
    close(euler, torch.full_like(euler, M))  # it is the data mean


# ------------------------------------------------------------------------- section 4: consistency


def step(exact, x, t, s, order: int):
    """One Euler (order 1) or Heun (2) step of the teacher on the VE path."""
    h = expand(s - t, x)
    v = exact.predict(x, t, {}, "velocity")
    if order == 1:
        return x + h * v
    return x + 0.5 * h * (v + exact.predict(x + h * v, s, {}, "velocity"))


def target_errors(order: int, c: float = 0.7, t: float = 1.5, h: float = 0.2):
    """|f*(x_t, t) - f*(step(x_t), s)| at |x - m| = 1, for h, h/2, h/4."""
    exact, x = Gaussian(EDM(), M, c), torch.full((3, 1), M + 1, dtype=torch.float64)
    t, s = torch.full((3,), t).double(), t - h * torch.tensor([1, 0.5, 0.25]).double()
    there = exact.consistency(step(exact, x, t, s, order), s, {})
    return consistency(exact.consistency(x, t, {}), there, squared).sqrt()


def test_euler_target_error_is_second_order():
    errors = target_errors(1)
    close(errors, torch.tensor([7.0e-4, 1.5e-4, 3.6e-5]).double(), rtol=0.03)  # section 4
    slopes = torch.log2(errors[:-1] / errors[1:]) * 2
    assert abs(slopes[1] - 4) < 0.2, "the loss is a square, so it falls with h^4"


def test_heun_target_error_is_third_order():
    errors = target_errors(2, h=0.1)
    slopes = torch.log2(errors[:-1] / errors[1:]) * 2
    assert abs(slopes[1] - 6) < 0.2
    assert errors[0] < target_errors(1, h=0.1)[0] / 5


@every_path
def test_consistency_map_is_constant_along_the_flow(path):
    exact, x, t = Gaussian(path, M, C), doubles(5, 2), times(path, 5, 0.5, 1)
    s = times(path, 5, 0.0, 0.4)
    whole = exact.consistency(x, t, {})
    close(exact.consistency(exact.flow_map(x, t, s), s, {}), whole, rtol=1e-8)
    first = torch.full((5,), path.t_min, dtype=torch.float64)
    close(exact.consistency(x, first, {}), x, atol=1e-6)


def test_one_parameter_consistency_training_finds_the_width():
    """f = m + (x - m) sqrt((w^2 + e^2) / (w^2 + t^2)), trained with Heun targets: w becomes c."""
    exact, path = Gaussian(EDM(), M, C), EDM()
    grid = times(path, 121)
    t, s, e = grid[1:], grid[:-1], grid[0]
    x = M + torch.sqrt(C**2 + t**2)[:, None]
    x_s = step(exact, x, t, s, order=2)
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def f(x, t):
        return M + (x - M) * torch.sqrt((w**2 + e**2) / (w**2 + expand(t, x) ** 2))

    optimizer = torch.optim.Adam([w], lr=0.03)
    for k in range(300):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - k / 300)
        optimizer.zero_grad()
        consistency(f(x, t), f(x_s, s), squared).mean().backward()
        optimizer.step()
    assert abs(w.item() - C) < 1e-3
