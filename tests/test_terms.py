"""Loss terms: padding, closed forms, and the DMD gradient against the derivative of a KL."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genkit.denoisers.analytic import Gaussian
from genkit.paths import EDM, PATHS, VP, RectifiedFlow
from genkit.terms import (
    DIVERGENCES,
    adversarial_head,
    adversarial_student,
    consistency,
    consistency_tangent,
    distribution_matching,
    flow_matching,
    line_x_0,
    mean,
    normalised,
    pseudo_huber,
    regression,
    score_identity,
    squared,
    toward,
)

MEAN, STD = 1.3, 0.5  # the target of section 8
every_path = pytest.mark.parametrize("path", [p() for p in PATHS.values()], ids=list(PATHS))


def close(a, b, atol=1e-12, rtol=1e-10):
    torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


def test_mean_per_sample_and_frame():
    value = torch.arange(24.0).view(2, 3, 4)
    close(mean(value), torch.tensor([5.5, 17.5]))
    close(mean(value, over="frame"), value.mean(-1))
    close(mean(value[:, 0, 0]), value[:, 0, 0])


def test_mean_forgets_padding():
    value, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [0, 0, 0]])
    want = torch.stack([value[0, :2].mean(), torch.tensor(0.0)])
    close(mean(value, mask), want, atol=1e-6)
    spoilt = value.clone()
    spoilt[mask == 0] = float("nan")
    close(mean(spoilt, mask), want, atol=1e-6)
    per_frame = mean(spoilt, mask, over="frame")
    close(per_frame, value.mean(-1) * mask, atol=1e-6)
    whole = mean(value, torch.tensor([1.0, 0.0]))
    close(whole, torch.stack([value[0].mean(), torch.tensor(0.0)]), atol=1e-6)


def test_padding_has_no_gradient():
    value = torch.randn(2, 3).requires_grad_()
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]])
    mean(value**2, mask).sum().backward()
    assert value.grad is not None and (value.grad[mask == 0] == 0).all()
    assert (value.grad[mask == 1] != 0).all()


def test_distances():
    a, b = torch.randn(4, 3, 2).double(), torch.randn(4, 3, 2).double()
    rms = ((a - b) ** 2).mean((1, 2))
    close(squared(a, b), rms)
    close(pseudo_huber(a, b, c=0.1), torch.sqrt(rms + 0.01) - 0.1)
    close(pseudo_huber(a, a), torch.zeros(4).double())


@every_path
def test_regression_is_least_at_the_posterior_mean(path):
    """E |D - x_0|^2 over data and noise has its minimum, c^2 sigma^2 / V, at the closed form."""
    generator = torch.Generator().manual_seed(0)
    x_0 = MEAN + STD * torch.randn(200_000, 1, generator=generator, dtype=torch.float64)
    eps = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    t = path.time(torch.full((len(x_0),), 0.4, dtype=torch.float64))
    x_t, exact = path.add_noise(x_0, eps, t), Gaussian(path, MEAN, STD)
    alpha, sigma = path.alpha(t[0]), path.sigma(t[0])
    var = alpha**2 * STD**2 + sigma**2
    best = regression(exact.predict(x_t, t, {}, "x_0"), x_0, eps, path, t, "x_0").mean()
    close(best, STD**2 * sigma**2 / var, rtol=0.02)
    velocity = exact.predict(x_t, t, {}, "velocity")
    least = flow_matching(velocity, x_0, eps, path, t).mean()
    close(least, regression(velocity, x_0, eps, path, t, "velocity").mean())
    for off in (0.9, 1.1):
        assert flow_matching(off * velocity, x_0, eps, path, t).mean() > least
    assert flow_matching(path.target(x_0, eps, t, "velocity"), x_0, eps, path, t).max() < 1e-18


def test_the_velocity_of_an_x_0_weighs_no_more_below_the_floor():
    path, off, t = PATHS["rectified_flow"](), 0.1, torch.tensor([1e-4, 0.02, 0.05, 0.5])
    x_0, eps = torch.zeros(4, 3), torch.randn(4, 3)
    velocity = eps - (x_0 + off) / t[:, None] + x_0 / t[:, None] - x_0
    weight = (off / t).square()
    close(flow_matching(velocity, x_0, eps, path, t), weight, atol=1e-2, rtol=1e-4)
    bounded = torch.where(t < 0.05, (off / 0.05) ** 2, weight)
    close(flow_matching(velocity, x_0, eps, path, t, kind="x_0"), bounded, atol=1e-4, rtol=1e-4)


def test_consistency_moves_only_one_side():
    here, there = torch.randn(3, 2).requires_grad_(), torch.randn(3, 2).requires_grad_()
    loss = consistency(here, there, squared)
    close(loss, ((here - there) ** 2).mean(1))
    loss.sum().backward()
    assert here.grad is not None and there.grad is None
    close(here.grad, (here - there).detach(), atol=1e-6)


def test_adversarial_terms():
    real, fake = torch.tensor([[0.3, 2.0]]), torch.tensor([[-1.0, 0.5]])
    close(adversarial_student(fake), F.softplus(-fake).mean(1))
    close(adversarial_head(real, fake), (F.softplus(fake) + F.softplus(-real)).mean(1))
    assert adversarial_head(real + 9, fake - 9) < adversarial_head(real, fake)
    assert adversarial_student(fake + 9) < adversarial_student(fake)


@pytest.mark.parametrize("over", ["sample", "batch"])
def test_distribution_matching_gradient(over):
    x_0, teacher, fake = (torch.randn(3, 4, dtype=torch.float64) for _ in range(3))
    weight = torch.tensor([1.0, 0.5, 2.0]).double()
    normaliser = (x_0 - teacher).abs().mean(1)
    if over == "batch":
        normaliser = normaliser.mean().expand(3)
    want = (fake - teacher) / normaliser[:, None] * weight[:, None]
    x_0.requires_grad_(), teacher.requires_grad_(), fake.requires_grad_()
    loss = distribution_matching(x_0, teacher, fake, weight, over=over)
    close(loss, 0.5 * (want**2).mean(1))
    loss.sum().backward()
    assert x_0.grad is not None and teacher.grad is None and fake.grad is None
    close(x_0.grad, want / 4)


def test_distribution_matching_padding():
    x_0, teacher, fake = (torch.randn(2, 4) for _ in range(3))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    short = distribution_matching(x_0[:1, :2], teacher[:1, :2], fake[:1, :2])
    teacher[0, 2:], fake[0, 2:] = 1e3, -1e3
    close(distribution_matching(x_0, teacher, fake, mask=mask)[:1], short, atol=1e-6)


def quadrature(n: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nodes (z, eps) and weights, exact for Gaussian expectations of polynomials."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(n))
    weights = weights / weights.sum()
    z, eps = torch.meshgrid(nodes, nodes, indexing="ij")
    return z.reshape(-1, 1), eps.reshape(-1, 1), torch.outer(weights, weights).reshape(-1)


def dmd_loss(path, a, b, t: float, likelihood_scale: bool):
    """The expected DMD loss of the student a + b z with the exact fake score, by quadrature.

    likelihood_scale: undo the normaliser and weight by alpha^2 / sigma^2, which turns D_fake - D
    into the score difference whose expectation is the gradient of KL(p_t | q_t).
    """
    z, eps, probability = quadrature()
    x_0 = a + b * z
    times = torch.full((len(z),), t, dtype=torch.float64)
    x_t = path.add_noise(x_0, eps, times).detach()
    teacher = Gaussian(path, MEAN, STD).predict(x_t, times, {}, "x_0")
    fake = Gaussian(path, a.detach(), b.detach()).predict(x_t, times, {}, "x_0")
    scale = 1.0
    if likelihood_scale:
        scale = (path.alpha(times) / path.sigma(times)) ** 2 * (x_0 - teacher).abs().mean().detach()
    loss = distribution_matching(x_0, teacher, fake, over="batch")
    return (probability * scale * loss).sum()


def kl(path, a, b, t: float):
    """KL(N(alpha a, V_p) | N(alpha m, V_q)) at noise level t."""
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = path.alpha(time), path.sigma(time)
    p, q = alpha**2 * b**2 + sigma**2, alpha**2 * STD**2 + sigma**2
    return 0.5 * (p / q + alpha**2 * (a - MEAN) ** 2 / q - 1 - torch.log(p / q))


@pytest.mark.parametrize(
    ("path", "t"), [(RectifiedFlow(), 0.3), (RectifiedFlow(), 0.8), (EDM(), 1.7), (VP(), 0.4)]
)
def test_dmd_gradient_is_the_derivative_of_the_kl(path, t):
    """Section 8, with the exact fake score: to 1e-6 and better, in mean and in spread."""
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (-0.4, 1.1))
    got = torch.autograd.grad(dmd_loss(path, a, b, t, likelihood_scale=True), (a, b))
    want = torch.autograd.grad(kl(path, a, b, t), (a, b))
    close(torch.stack(got), torch.stack(want), atol=1e-9, rtol=1e-9)
    assert want[0] < 0 < want[1], "towards a larger mean and a smaller spread"


def test_dmd_with_the_exact_fake_converges():
    """Section 8: the student a + b z ends at (1.3000, 0.5000)."""
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.0, 1.0))
    optimizer = torch.optim.SGD([a, b], lr=0.5)
    path = RectifiedFlow()
    for _ in range(150):
        optimizer.zero_grad()
        torch.stack([dmd_loss(path, a, b, t, False) for t in (0.2, 0.5, 0.8)]).mean().backward()
        optimizer.step()
    close(torch.stack([a, b]).detach(), torch.tensor([MEAN, STD]).double(), atol=5e-5)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_weight_of_a_divergence_is_its_second_derivative(name):
    r = torch.tensor([0.2, 0.9, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(DIVERGENCES[name].f(r).sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), r, create_graph=True)
    close(DIVERGENCES[name].weight(r), r**2 * second)
    (slope_of_h,) = torch.autograd.grad((r**2 * second).sum(), r)
    close(DIVERGENCES[name].d_weight(r), slope_of_h)
    close(DIVERGENCES[name].f(torch.ones(1).double()), torch.zeros(1).double())


# Card 9: student N(.2, .6^2), teacher N(.7, .8^2), both noised by .9.
SMALL = (0.2, 0.6, 0.7, 0.8, 0.9)
GOLDEN = {
    "reverse_kl": (-0.344828, -0.099027),
    "js": (-0.179757, -0.068314),
    "forward_kl": (-0.42735, -0.232303),
}


def divergence_gradients(name: str, turned: bool = False):
    """(d/da, d/db) of D_f by the integral itself, and by distribution_matching with weight h(r).

    turned: give h the ratio of student to teacher.
    """
    mean, spread, m, c, s = SMALL
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (mean, spread))
    x = torch.linspace(-14, 14, 20_001, dtype=torch.float64)
    p = torch.distributions.Normal(a, torch.sqrt(b**2 + s**2))
    q = torch.distributions.Normal(torch.tensor(m).double(), (c**2 + s**2) ** 0.5)
    inside = p.log_prob(x).exp() * DIVERGENCES[name].f((q.log_prob(x) - p.log_prob(x)).exp())
    want = torch.autograd.grad(torch.trapezoid(inside, x), (a, b))
    path, (z, eps, probability) = EDM(), quadrature(64)
    t, x_0 = torch.full((len(z),), s, dtype=torch.float64), a + b * z
    x_t = (x_0 + s * eps).detach()
    teacher = Gaussian(path, m, c).predict(x_t, t, {}, "x_0")
    fake = Gaussian(path, mean, spread).predict(x_t, t, {}, "x_0")
    with torch.no_grad():
        log_r = (q.log_prob(x_t) - p.log_prob(x_t))[:, 0]
        weight = DIVERGENCES[name].weight(torch.exp(-log_r if turned else log_r))
    loss = distribution_matching(x_0, teacher, fake, weight, over="batch")
    scale = (x_0 - teacher).abs().mean().detach() / s**2
    return want, torch.autograd.grad((probability * loss).sum() * scale, (a, b))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_weighed_matching_is_the_derivative_of_the_divergence(name):
    want, got = divergence_gradients(name)
    close(torch.stack(got), torch.stack(want), atol=1e-8, rtol=1e-6)
    if name in GOLDEN:
        close(torch.stack(got), torch.tensor(GOLDEN[name]).double(), atol=6e-7)


def test_a_ratio_turned_over_is_another_divergence():
    """The broken twin: with real and generated swapped, JS silently becomes softened RKL."""
    want, got = divergence_gradients("js", turned=True)
    assert (torch.stack(got) - torch.stack(want)).abs().max() > 0.02
    close(torch.stack(got), torch.stack(divergence_gradients("softened_rkl")[0]), atol=1e-8)


def test_the_best_head_s_logit_is_the_log_ratio():
    """Moved off log q / p along any direction, the head's loss has slope 0 and rises."""
    x = torch.linspace(-14, 14, 20_001, dtype=torch.float64)
    p, q = torch.distributions.Normal(0.2, 1.1), torch.distributions.Normal(0.7, 1.2)
    off = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    basis = torch.stack([torch.ones_like(x), x, x**2])
    logit = (q.log_prob(x) - p.log_prob(x) + off @ basis)[:, None]
    nothing = torch.full_like(logit, -torch.inf)
    of_fake = adversarial_head(-nothing, logit) * p.log_prob(x).exp()
    of_real = adversarial_head(logit, nothing) * q.log_prob(x).exp()
    (slope,) = torch.autograd.grad(torch.trapezoid(of_fake + of_real, x), off)
    close(slope, torch.zeros(3).double(), atol=1e-9)


def identity_loss(path, a, b, target, t: float, alpha: float):
    """The expected SiD loss of the student a + b z with the exact fake score, not normalised."""
    z, eps, probability = quadrature()
    x_0 = a + b * z
    times = torch.full((len(z),), t, dtype=torch.float64)
    x_t = path.add_noise(x_0, eps, times)
    teacher = Gaussian(path, *target).predict(x_t, times, {}, "x_0")
    fake = Gaussian(path, a.detach(), b.detach()).predict(x_t, times, {}, "x_0")
    loss = score_identity(x_0, teacher, fake, alpha, over="batch")
    return (probability * loss).sum() * (x_0 - teacher).abs().mean().detach()


@pytest.mark.parametrize(
    ("alpha", "golden"), [(0.5, (-0.156029, -0.100340)), (1.0, (-0.193369, -0.111063))]
)
def test_score_identity_has_the_golden_gradient(alpha, golden):
    mean, spread, m, c, s = SMALL
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (mean, spread))
    got = torch.autograd.grad(identity_loss(EDM(), a, b, (m, c), s, alpha), (a, b))
    close(torch.stack(got), torch.tensor(golden).double(), atol=6e-7)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("path", [RectifiedFlow(), VP()])
def test_score_identity_is_half_the_fisher_divergence_s_gradient(path, held):
    """alpha = .5: the gradient of E |Delta|^2 / 2; alpha = 1: with the samples of x_t held."""
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.2, 0.6))
    got = torch.autograd.grad(identity_loss(path, a, b, (0.7, 0.8), 0.4, 0.5 + 0.5 * held), (a, b))
    z, eps, probability = quadrature()
    t = torch.full((len(z),), 0.4, dtype=torch.float64)
    x_t = path.add_noise(a + b * z, eps, t)
    x_t = x_t.detach() if held else x_t
    delta = Gaussian(path, 0.7, 0.8).predict(x_t, t, {}, "x_0")
    # The buffers of a Gaussian cut gradients, so the fake one is written out.
    alpha, sigma = path.alpha(t[:1]), path.sigma(t[:1])
    gain = alpha * b**2 / (alpha**2 * b**2 + sigma**2)
    delta = delta - (a + gain * (x_t - alpha * a))
    want = torch.autograd.grad(0.5 * (probability * delta[:, 0] ** 2).sum(), (a, b))
    close(torch.stack(got), torch.stack(want), atol=1e-9, rtol=1e-8)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2])
def test_score_identity_with_the_exact_fake_converges(alpha):
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.0, 1.0))
    optimizer, path = torch.optim.Adam([a, b], lr=0.05), RectifiedFlow()
    for _ in range(300):
        optimizer.zero_grad()
        loss = [identity_loss(path, a, b, (MEAN, STD), t, alpha) for t in (0.3, 0.6)]
        torch.stack(loss).mean().backward()
        optimizer.step()
    close(torch.stack([a, b]).detach(), torch.tensor([MEAN, STD]).double(), atol=1e-3)


def test_score_identity_forgets_padding():
    x_0, teacher, fake = (torch.randn(2, 4) for _ in range(3))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    short = score_identity(x_0[:1, :2], teacher[:1, :2], fake[:1, :2], 1.2)
    teacher[0, 2:], fake[0, 2:] = 1e3, -1e3
    close(score_identity(x_0, teacher, fake, 1.2, mask)[:1], short, atol=1e-5)


@every_path
def test_two_points_of_a_path_hold_their_x_0(path):
    x_0, eps = torch.randn(6, 3).double(), torch.randn(6, 3).double()
    t = path.time(torch.tensor([1.0, 1.0, 0.9, 0.5, 0.3, 0.1]).double())
    s = path.time(torch.tensor([0.9, 0.0, 0.2, 0.4, 0.0, 0.05]).double())
    line = line_x_0(path.add_noise(x_0, eps, t), t, path.add_noise(x_0, eps, s), s, path)
    close(line, x_0, atol=1e-9)


def test_tangent_is_the_consistency_function_s_derivative():
    """Of f = cos(t) x - sin(t) v(x, t), times cos(t), for any v; only its first part at r = 0."""
    x, slope = torch.randn(8, 2).double(), torch.randn(8, 2).double()
    t = torch.linspace(0.1, 1.5, 8).double()

    def v(x, t):
        return torch.sin(3 * x) * torch.exp(-t[:, None]) + x.flip(1) * t[:, None] ** 2

    def f(x, t):
        return torch.cos(t)[:, None] * x - torch.sin(t)[:, None] * v(x, t)

    cos, sin = torch.cos(t), torch.sin(t)
    rate = cos * sin
    value, moved = torch.func.jvp(v, (x, t), (rate[:, None] * slope, rate))
    want = cos[:, None] * torch.func.jvp(f, (x, t), (slope, torch.ones_like(t)))[1]
    close(consistency_tangent(x, value, slope, moved, t, 1.0), want)
    first = -(cos[:, None] ** 2) * (value - slope)
    close(consistency_tangent(x, value, slope, moved, t, 0.0), first)


def test_a_normalised_tangent_has_its_direction_and_about_unit_size():
    tangent = torch.randn(3, 50).double() * torch.tensor([[1e-3], [1.0], [1e4]]).double()
    got = normalised(tangent)
    size = tangent.square().mean(1).sqrt()
    close(got, tangent / (size + 0.1)[:, None])
    mask = torch.ones(3, 50)
    mask[:, 20:] = 0
    close(normalised(tangent, mask)[:, :20], normalised(tangent[:, :20]))


def test_toward_pulls_along_the_tangent_and_learns_its_weight():
    """The gradient is -2 e^w tangent / size; in w the loss is least where e^w error = 1."""
    prediction, tangent = (torch.randn(2, 5).double().requires_grad_() for _ in range(2))
    weight = torch.tensor([0.3, -1.0]).double().requires_grad_()
    loss = toward(prediction, tangent, weight)
    error = tangent.square().mean(1)
    close(loss, weight.exp() * error - weight)
    loss.sum().backward()
    assert tangent.grad is None
    assert prediction.grad is not None and weight.grad is not None
    close(prediction.grad, -2 * weight.exp()[:, None].detach() * tangent.detach() / 5)
    close(weight.grad, (weight.exp() * error - 1).detach())
