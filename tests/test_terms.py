"""Loss terms: padding, closed forms, and the DMD gradient against the derivative of a KL."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genkit.denoisers.analytic import Gaussian
from genkit.paths import EDM, PATHS, VP, RectifiedFlow
from genkit.terms import (
    adversarial_head,
    adversarial_student,
    consistency,
    distribution_matching,
    flow_matching,
    mean,
    pseudo_huber,
    regression,
    squared,
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
