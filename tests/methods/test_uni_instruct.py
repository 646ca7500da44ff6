"""Uni-Instruct on Gaussians with the exact ratio: the gradient is the integral's (card 11)."""

import numpy as np
import pytest
import torch
from torch import nn

from genkit import terms
from genkit.denoisers.analytic import Gaussian
from genkit.hub import make_scheduler
from genkit.methods import sid
from genkit.methods.base import Moment, Roles
from genkit.methods.uni_instruct import Method
from genkit.paths import EDM
from genkit.rng import Rng

A, B, M, C, S = 0.2, 0.6, 0.7, 0.8, 0.9  # card 9's point
FREE = {"ratio_memory": 1.0, "ratio_low": 1e-9, "ratio_high": 1e9}


class Exact(Method):
    """The head that cannot be better: log q / p of the teacher's and the fake's Gaussians."""

    target = (M, C)

    def _logits(self, roles, x_t, t, cond):
        fake = roles["fake"]
        q, p = Gaussian(self.path, *self.target), Gaussian(self.path, fake.mean, fake.std)
        logits = (q.log_density(x_t, t) - p.log_density(x_t, t))[:, None]
        return logits, fake.predict(x_t, t, cond, "velocity")


class Constant(Exact):
    """The broken twin: the ratio is held constant, as in the release."""

    def ratio(self, logits, t):
        return super().ratio(logits.detach(), t)


class Turned(Exact):
    """The broken twin: generated samples are the head's positive class."""

    def _logits(self, *given):
        logits, velocity = super()._logits(*given)
        return -logits, velocity


def hermite(n):
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(n))
    return nodes, weights / weights.sum()


def slopes(cls, learned, name):
    """d/d(mean, std) of the student's loss in quadrature over x_0 and noise, in scores' units."""
    path = EDM()
    method = cls(cls.Config(**FREE), path, (1,))
    nodes, weights = hermite(64)
    z, eps = (x.reshape(-1, 1) for x in torch.meshgrid(nodes, nodes, indexing="ij"))
    probability = torch.outer(weights, weights).flatten()
    mean, std = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (A, B))
    x_0, t = mean + std * z, torch.full((len(z),), S, dtype=torch.float64)
    x_t = x_0 + S * eps
    fake = learned(path, "posterior", A, B).requires_grad_(False)
    roles = Roles(teacher=Gaussian(path, M, C), fake=fake)
    divergence = terms.DIVERGENCES[name]
    loss = method.matching(roles, x_0, x_t, t, {}, None, divergence)
    normaliser = (x_0 - roles["teacher"].predict(x_t, t, {}, "x_0")).detach().abs().mean()
    whole = (probability * loss).sum() * normaliser / S**4
    return [each.item() for each in torch.autograd.grad(whole, (mean, std))]


def integral(name, a, b):
    """J(a, b) = E_p[h(q / p) |s_q - s_p|^2] of x_t, by quadrature, with no network."""
    nodes, weights = hermite(200)
    numbers = torch.tensor([a, M, b**2 + S**2, C**2 + S**2], dtype=torch.float64)
    a, m, p_var, q_var = numbers
    x = a + p_var.sqrt() * nodes
    q = torch.distributions.Normal(m, q_var.sqrt())
    p = torch.distributions.Normal(a, p_var.sqrt())
    ratio = torch.exp(q.log_prob(x) - p.log_prob(x))
    delta = (M - x) / q.variance - (a - x) / p.variance
    return float((weights * terms.DIVERGENCES[name].weight(ratio) * delta**2).sum())


def differences(name, h=1e-4):
    """Central differences of the integral in mean and std."""
    return [
        (integral(name, A + h, B) - integral(name, A - h, B)) / (2 * h),
        (integral(name, A, B + h) - integral(name, A, B - h)) / (2 * h),
    ]


@pytest.mark.parametrize("name", terms.DIVERGENCES)
def test_the_gradient_is_that_of_the_integral(learned, name):
    assert slopes(Exact, learned, name) == pytest.approx(differences(name), rel=1e-6)


def test_forward_kl_has_its_golden_value_and_the_release_has_not(learned):
    assert slopes(Exact, learned, "forward_kl") == pytest.approx((-0.7305, -0.7942), abs=1e-4)
    held = slopes(Constant, learned, "forward_kl")
    assert held == pytest.approx((-0.7305, -0.5664), abs=1e-4), "twin: wrong in the scale"


@pytest.mark.parametrize("name", ["js", "forward_kl", "pearson", "jeffreys"])
@pytest.mark.parametrize("twin", [Constant, Turned])
def test_the_broken_twins_fail(learned, name, twin):
    assert slopes(twin, learned, name) != pytest.approx(differences(name), rel=0.05)


def test_reverse_kl_is_sid_at_one_half(learned):
    """Card 11: SIM + Fisher = SiD at alpha 0.5, twice."""
    path, t = EDM(), torch.full((32,), S, dtype=torch.float64)
    rng = Rng(0)
    x_0, eps = (rng.normal((32, 1), torch.float64) for _ in range(2))
    roles = Roles(teacher=Gaussian(path, M, C), fake=learned(path, "posterior", A, B))
    mine = Exact(Exact.Config(), path, (1,))
    theirs = sid.Method(sid.Method.Config(alpha=0.5), path, (1,))
    x_t = x_0 + S * eps
    got = mine.matching(roles, x_0, x_t, t, {}, None, terms.DIVERGENCES["reverse_kl"])
    assert torch.allclose(got, 2 * theirs._matching(roles, x_0, x_t, t, {}, None), atol=1e-12)


def test_matches_the_teacher_s_distribution(fit, learned, path):
    """Both stages move a student whose fake score is learned to the teacher's mean and std."""
    method = Exact(Exact.Config(fake_turns=3, gan_delay=1.0, adversarial=1e-6), path, (1,))
    method.target = (1.3, 0.5)
    student, others = learned(path, "posterior", 0.3, 0.9), {"head": nn.Linear(1, 1)}
    others["fake"] = learned(path, "posterior", 0.3, 0.9)
    for stage in (0, 1):
        fit(method, student, others, stage=stage, steps=200)
    low, high = method.sample(student, torch.tensor([[-1.0], [1.0]]), {})[:, 0].tolist()
    assert ((low + high) / 2, (high - low) / 2) == pytest.approx((1.3, 0.5), abs=0.04)


def test_stages_are_the_divergences_and_the_student_waits(path):
    method = Method(Method.Config(delay=0.1, fake_turns=2), path, (1,))
    stages = method.stages()
    assert [stage.name for stage in stages] == ["reverse_kl", "forward_kl"]
    critics = ("fake", "head")
    assert method.turns(Moment(stages[0], 0, 50)) == [critics] * 7 + [("student",)]
    for moment in (Moment(stages[0], 1, 50), Moment(stages[1], 0, 50)):
        assert method.turns(moment) == [critics] * 2 + [("student",)]
    for config in ({"first_share": 0.0}, {"first_share": 1.0}, {"first": "forward_kl"}):
        (only,) = Method(Method.Config(**config), path, (1,)).stages()
        assert only.share == 1


def test_the_gan_begins_later_than_the_student(path, learned, teacher):
    method = Exact(Exact.Config(gan_delay=0.5), path, (1,))
    method.scheduler = make_scheduler(method.sampler(), path, "x_0", 1000.0)
    roles = Roles(teacher=teacher, student=learned(path, "posterior"), head=nn.Linear(1, 1))
    roles["fake"] = learned(path, "posterior", 0.3, 0.8)
    data = {"data": {"x_0": torch.zeros(16, 1).double(), "cond": {}}}
    first, second = method.stages()
    early, late, later = (
        method.loss(roles, data, moment, Rng(0))
        for moment in (Moment(first, 4, 10), Moment(first, 5, 10), Moment(second, 0, 10))
    )
    assert early["total"] == early["matching"] and "adversarial" not in early
    for losses in (late, later):
        assert losses["total"] == losses["matching"] + 0.01 * losses["adversarial"]


@pytest.mark.parametrize(
    "config",
    [{"adversarial": 0.0}, {"start": 0.0}, {"first": "kl"}, {"delay": 2.0}, {"first_share": -1.0}],
    ids=str,
)
def test_what_cannot_be_is_refused(path, config):
    with pytest.raises(ValueError, match=str(next(iter(config.values())))):
        Method(Method.Config(**config), path, (1,))
