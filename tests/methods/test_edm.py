"""EDM on a Gaussian: the optimum of its loss is the posterior mean, and the weight is Karras'."""

import torch

from genkit.denoisers.analytic import Gaussian
from genkit.methods import edm
from genkit.methods.base import Moment, Roles, Stage
from genkit.paths import EDM
from genkit.rng import Rng

M, C = 0.4, 0.5


class Shifted(Gaussian):
    """The exact denoiser, moved by a constant share of what is left of the noise."""

    shift = 0.0

    def predict(self, x_t, t, cond, kind, s=None):
        value = super().predict(x_t, t, cond, "x_0")
        return value + self.shift * (t / (1 + t))[:, None].to(value)


def loss(method, shift, n=20_000):
    student = Shifted(method.path, M, C)
    student.shift = shift
    x_0 = M + C * Rng(0, "data").normal((n, 2))
    batch = {"data": {"x_0": x_0, "cond": {}}}
    moment = Moment(Stage("train"), 0, 1)
    return float(method.loss(Roles(student=student), batch, moment, Rng(0, "noise"))["total"])


def made(kind=edm.Method):
    return kind(edm.Method.Config(drop=0.0), EDM(), (2,))


def test_the_exact_denoiser_is_the_minimum():
    here, up, down = (loss(made(), shift) for shift in (0.0, 0.05, -0.05))
    assert here < up and here < down
    # A weighted squared error: at the optimum it is the mean of weight times posterior variance,
    # which for sigma_data = C is exactly 1, whatever the noise level.
    assert abs(here - 1) < 0.03


def test_the_weight_is_karras():
    sigma = torch.tensor([0.01, 0.5, 80.0])
    want = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    assert torch.allclose(made().weight(sigma), want)


class Twin(edm.Method):
    """Weighs by 1 / sigma_data^2 alone, so that small noise is not learned."""

    def weight(self, t):
        return torch.full_like(t, 4.0)


def test_the_broken_twin_fails():
    assert abs(loss(made(Twin), 0.0) - 1) > 0.3
