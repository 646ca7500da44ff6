"""Denoisers around Denoisers: guidance, change of path, preconditioning, the boundary condition."""

import itertools

import pytest
import torch
from denoiser_toys import ALL, COND, C, M, Toy, close, doubles, every_path, times
from torch import nn

from genkit.denoisers.analytic import Gaussian, Mixture
from genkit.denoisers.base import Guided, NetworkDenoiser
from genkit.denoisers.preconditioned import Boundary, EDMPreconditioned
from genkit.denoisers.repathed import Repathed
from genkit.paths import EDM, KINDS, VP, DiscreteVP, RectifiedFlow, TrigFlow

every_pair = pytest.mark.parametrize(
    ("path", "other"), list(itertools.product(ALL, ALL)), ids=lambda path: path.name
)

# -------------------------------------------------------------------------- guidance as a Denoiser


def test_guidance_of_one_changes_nothing():
    toy = Toy()
    x, t = doubles(3, 2), torch.rand(3).double()
    for w in (1.0, torch.ones(3).double()):
        guided = Guided(toy, w, {"label": torch.tensor([7])})
        for kind in KINDS:
            close(guided.predict(x, t, COND, kind), toy.predict(x, t, COND, kind), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_means_the_same_in_every_kind(kind):
    toy, none = Toy(kind="eps", path=VP()), {"label": torch.tensor([7])}
    x, t, w = doubles(3, 2), torch.tensor([0.2, 0.5, 0.9]).double(), torch.tensor([0.0, 1.0, 3.0])
    uncond = toy.predict(x, t, {"label": torch.tensor([7, 7, 7])}, kind)
    cond = toy.predict(x, t, COND, kind)
    toy.calls = 0
    got = Guided(toy, w, none).predict(x, t, COND, kind)
    assert toy.calls == 1, "both halves in one forward"
    close(got, uncond + w.double()[:, None] * (cond - uncond), atol=1e-9)


def test_guided_mixture_is_the_tilted_density():
    """uncond + w (cond - uncond) of scores is the gradient of w log p(x|y) + (1 - w) log p(x)."""
    path, labels = RectifiedFlow(), torch.tensor([0, 0, 1])
    exact = Mixture(path, doubles(3, 2), 0.6, labels=labels)
    cond, t = {"label": torch.tensor([0, 1])}, torch.tensor([0.3, 0.7]).double()
    x = doubles(2, 2, seed=3).requires_grad_()
    tilted = 2.5 * exact.log_density(x, t, cond) - 1.5 * exact.log_density(x, t)
    (score,) = torch.autograd.grad(tilted.sum(), x)
    guided = Guided(exact, 2.5, {"label": torch.tensor([2])})
    close(guided.predict(x.detach(), t, cond, "eps"), -t[:, None] * score, atol=1e-9)


# ----------------------------------------------------------------------------- change of path


def shared_times(path, other) -> torch.Tensor:
    """Times of `path` whose noise angle lies inside `other`'s range; ends where both have them."""
    low, high = other.angle(torch.tensor([other.t_min, other.t_max], dtype=torch.float64))
    t = times(path, 25)
    return t[(path.angle(t) >= low - 1e-12) & (path.angle(t) <= high + 1e-12)]


@every_pair
def test_repathed_is_the_gaussian_there(path, other):
    repathed, exact = Repathed(Gaussian(other, M, C), path), Gaussian(path, M, C)
    t = shared_times(path, other)
    assert len(t) >= 5
    x = doubles(len(t), 2)
    for kind in ("velocity", "v_prediction"):
        close(repathed.predict(x, t, {}, kind), exact.predict(x, t, {}, kind), 1e-6, 1e-6)
    inside = t[1:-1]
    for kind in ("x_0", "eps"):
        want = exact.predict(x[1:-1], inside, {}, kind)
        close(repathed.predict(x[1:-1], inside, {}, kind), want, 1e-6, 1e-6)


def test_repathed_trigflow_is_rcms():
    """Section 0, to 1e-15: F = k ((cos - sin) x + v_rf), D = k x - k sin v_rf."""
    toy, theta = Toy(), torch.linspace(0, torch.pi / 2, 33, dtype=torch.float64)
    x, cond = doubles(33, 2), {"label": torch.zeros(33)}
    sin, cos = torch.sin(theta)[:, None], torch.cos(theta)[:, None]
    k = 1 / (sin + cos)
    v = toy.predict(k * x, (k * sin)[:, 0], cond, "velocity")
    repathed = Repathed(toy, TrigFlow())
    velocity = repathed.predict(x, theta, cond, "velocity")
    close(velocity, k * ((cos - sin) * x + v), atol=1e-14, rtol=0)
    close(repathed.predict(x, theta, cond, "x_0"), k * x - k * sin * v, atol=1e-14, rtol=0)


def test_repathed_trigflow_has_no_quotient_in_float32():
    """At theta = 1e-8 the form (cos x - D) / sin is wrong by 0.24 in float32."""
    toy, theta = Toy().float(), torch.tensor([1e-8, 1e-4, 1.57])
    x, cond = torch.randn(3, 2), {"label": torch.zeros(3)}
    got = Repathed(toy, TrigFlow()).predict(x, theta, cond, "velocity")
    want = Repathed(Toy(), TrigFlow()).predict(x.double(), theta.double(), cond, "velocity")
    close(got.double(), want, atol=1e-5, rtol=0)


def test_repathed_jvp():
    repathed = Repathed(Gaussian(RectifiedFlow(), M, C), TrigFlow())
    exact, x, t = Gaussian(TrigFlow(), M, C), doubles(3, 2), torch.tensor([0.2, 0.8, 1.4]).double()
    dx, dt = doubles(3, 2, seed=1), torch.ones(3).double()
    close(
        repathed.jvp(x, t, {}, "velocity", dx, dt)[1],
        exact.jvp(x, t, {}, "velocity", dx, dt)[1],
        atol=1e-9,
    )


def test_repathed_keeps_its_networks_time_scale():
    toy = Toy(time_scale=0.5)
    x, t, cond = doubles(3, 2), torch.tensor([0.2, 0.5, 0.8]).double(), COND
    same = Repathed(toy, RectifiedFlow())
    close(same.predict(x, t, cond, "velocity"), toy.predict(x, t, cond, "velocity"))


# ------------------------------------------------------------------------ preconditioning, boundary


@pytest.mark.parametrize("sigma_data", [0.5, 0.7])
def test_a_perfect_f_gives_the_posterior(sigma_data):
    """With F = (D - c_skip x) / c_out as a function of its own inputs only."""
    path = EDM()

    def perfect(net, x_in, c_noise, cond, s):
        sigma = torch.exp(4 * c_noise)[:, None]
        norm = torch.sqrt(sigma**2 + sigma_data**2)
        x = x_in * norm
        exact = M + (x - M) * C**2 / (C**2 + sigma**2)
        return (exact - sigma_data**2 / norm**2 * x) / (sigma * sigma_data / norm)

    inner = NetworkDenoiser(nn.Identity(), perfect, path, "x_0")
    denoiser, exact = EDMPreconditioned(inner, path, sigma_data), Gaussian(path, M, C)
    t = times(path, 9)
    x = doubles(9, 2) * torch.sqrt(C**2 + t**2)[:, None]
    for kind in ("x_0", "velocity"):
        close(denoiser.predict(x, t, {}, kind), exact.predict(x, t, {}, kind), 1e-9, 1e-7)


def test_preconditioned_f_of_zero_is_the_skip():
    inner = NetworkDenoiser(nn.Identity(), lambda net, x, *_: 0 * x, EDM(), "x_0")
    x, t = doubles(4, 2), times(EDM(), 4)
    got = EDMPreconditioned(inner, EDM(), C).predict(x, t, {}, "x_0")
    # For data of mean 0 and std sigma_data the skip is already the posterior mean.
    close(got, Gaussian(EDM(), 0.0, C).predict(x, t, {}, "x_0"))


@every_path
def test_boundary_condition(path):
    """alpha(t_min) f(x, t_min) = x, to 1e-6, for a network that says something else entirely."""
    wrong = Toy(path, "x_0")
    bounded, x = Boundary(wrong), doubles(3, 2)
    first = torch.full((3,), path.t_min, dtype=torch.float64)
    assert (wrong.predict(x, first, COND, "x_0") - x).abs().max() > 0.1
    f = bounded.predict(x, first, COND, "x_0")
    close(path.alpha(first)[:, None] * f, x, atol=1e-6)
    if not isinstance(path, VP | DiscreteVP):  # there alpha(t_min) is .9996, not 1
        close(f, x, atol=1e-6)
    last = torch.full((3,), path.t_max, dtype=torch.float64)
    close(bounded.predict(x, last, COND, "x_0"), wrong.predict(x, last, COND, "x_0"), 0.05, 0)


def test_boundary_weights_are_the_papers_on_edm():
    path, inner = EDM(), Toy(EDM(), "x_0")
    x, t = doubles(3, 2), torch.tensor([0.01, 0.5, 3.0]).double()
    c_skip = 0.25 / ((t - 0.002) ** 2 + 0.25)
    want = c_skip[:, None] * x + (1 - c_skip)[:, None] * inner.predict(x, t, COND, "x_0")
    close(Boundary(inner).predict(x, t, COND, "x_0"), want)
    assert path.t_min == 0.002


def test_boundary_of_a_scaled_time():
    inner = Toy(RectifiedFlow(), "x_0", time_scale=1000.0)
    x, zero = doubles(3, 2), torch.zeros(3).double()
    close(Boundary(inner).predict(x, zero, COND, "x_0"), x)
