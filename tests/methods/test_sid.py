"""SiD on a Gaussian: golden gradients, and with a learned fake score the student finds the teacher
from the noise level it starts at (card 10)."""

import numpy as np
import pytest
import torch
from torch import nn

from genkit.denoisers.analytic import Gaussian
from genkit.hub import make_scheduler
from genkit.methods.base import Moment, Roles
from genkit.methods.sid import Method
from genkit.paths import EDM, PATHS
from genkit.rng import Rng


class Stopped(Method):
    """The broken twin: no gradient through the networks, as in DMD."""

    def _matching(self, roles, x_0, x_t, t, cond, mask):
        return super()._matching(roles, x_0, x_t.detach(), t, cond, mask)


class Swapped(Method):
    """The broken twin: teacher and fake score change places in the student's loss."""

    def _matching(self, roles, *rest):
        return super()._matching(
            Roles({**roles, "teacher": roles["fake"], "fake": roles["teacher"]}), *rest
        )


def slopes(cls, learned, alpha):
    """(d loss / d mean, d loss / d std) at card 10's point, in quadrature, not normalised."""
    path = EDM()
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(12))
    z, eps = (x.reshape(-1, 1) for x in torch.meshgrid(nodes, nodes, indexing="ij"))
    probability = torch.outer(weights, weights).flatten() / weights.sum() ** 2
    mean, std = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.2, 0.6))
    x_0, t = mean + std * z, torch.full((len(z),), 0.9, dtype=torch.float64)
    fake = learned(path, "posterior", 0.2, 0.6).requires_grad_(False)
    roles = Roles(teacher=Gaussian(path, 0.7, 0.8), fake=fake)
    method = cls(cls.Config(alpha=alpha), path, (1,))
    loss = method._matching(roles, x_0, x_0 + 0.9 * eps, t, {}, None)
    predicted = roles["teacher"].predict(x_0 + 0.9 * eps, t, {}, "x_0")
    whole = (probability * loss).sum() * (x_0 - predicted).detach().abs().mean()
    return [each.item() for each in torch.autograd.grad(whole, (mean, std))]


GOLDEN = {0.5: (-0.156029, -0.100340), 1.0: (-0.193369, -0.111063)}


@pytest.mark.parametrize("alpha", GOLDEN)
def test_the_gradient_is_the_golden_one(learned, alpha):
    assert slopes(Method, learned, alpha) == pytest.approx(GOLDEN[alpha], abs=1e-6)
    for twin in (Stopped, Swapped):
        assert slopes(twin, learned, alpha) != pytest.approx(GOLDEN[alpha], abs=0.02)


def generated(method, student):
    """(mean, std) of the student's samples, which are an affine map of the noise."""
    cond = {"label": torch.zeros(2).long()}
    low, high = method.sample(student, torch.tensor([[-1.0], [1.0]]), cond)[:, 0].tolist()
    return (low + high) / 2, (high - low) / 2


@pytest.mark.parametrize("cls", [Method, Swapped])
def test_matches_the_teacher_s_distribution(fit, learned, path, cls):
    config = cls.Config(fake_turns=3)
    method = cls(config, path, (1,))
    student, fake = learned(path, "posterior", 0.0, 1.0), learned(path, "posterior", 0.0, 1.0)
    steps = 300 if cls is Method else 100
    got = generated(method, fit(method, student, {"fake": fake}, steps=steps))
    assert (got == pytest.approx((1.3, 0.5), abs=0.03)) is (cls is Method)


@pytest.mark.parametrize("path", [p() for p in PATHS.values()], ids=list(PATHS))
def test_starts_as_the_teacher_at_the_noise_level(path):
    """G(z) = D(sigma z, t) with sigma / alpha = 2.5, whose closed form depends on z."""
    method = Method(Method.Config(), path, (1,))
    teacher = Gaussian(path, 1.3, 0.5)
    method.scheduler = make_scheduler(method.sampler(), path, "velocity", 1.0)
    t = torch.tensor(method.sampler().times)
    alpha, sigma = path.alpha(t.double()), path.sigma(t.double())
    assert float(sigma / alpha) == pytest.approx(2.5, rel=1e-5)
    z = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    gain = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2)
    want = 1.3 + gain * (sigma * z - alpha * 1.3)
    assert torch.allclose(method.sample(teacher, z, {}), want, atol=1e-5)


def test_with_a_gan_the_head_trains_beside_the_fake_score(path, learned, teacher):
    method = Method(Method.Config(adversarial=0.01), path, (1,))
    stage = method.stages()[0]
    assert method.turns(Moment(stage, 0, 1)) == [("fake", "head"), ("student",)]
    assert "head" in method.nets() and "head" not in Method(Method.Config(), path, (1,)).nets()
    method.scheduler = make_scheduler(method.sampler(), path, "x_0", 1000.0)
    method._logits = lambda roles, x_t, t, cond: (roles["head"](x_t.float()), x_t)
    roles = Roles(teacher=teacher, student=learned(path, "consistency"), head=nn.Linear(1, 1))
    roles["fake"] = learned(path, "posterior", 0.3, 0.8)
    roles.turn = ("student",)
    data = {"data": {"x_0": torch.zeros(16, 1), "cond": {}}}
    losses = method.loss(roles, data, Moment(stage, 0, 1), Rng(0))
    assert losses["total"] == losses["matching"] + 0.01 * losses["adversarial"]


def test_a_start_at_no_noise_is_refused(path):
    with pytest.raises(ValueError, match="start is 0"):
        Method(Method.Config(start=0.0), path, (1,))
