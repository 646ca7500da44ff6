"""sCM on a Gaussian, at whose exact consistency function the tangent is 0 (card 5)."""

import pytest
import torch

from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.repathed import Repathed
from genkit.methods.base import Moment, Roles
from genkit.methods.scm import Method
from genkit.networks.head import LogWeight
from genkit.paths import EDM, PATHS, RectifiedFlow
from genkit.rng import Rng

every_path = pytest.mark.parametrize("path", [p() for p in PATHS.values()], ids=list(PATHS))


def points(method, n=64):
    """(x_t, t) of the method's own times, float64."""
    t = method._times((n,), Rng(3)).double()
    x_0 = 1.3 + 0.5 * Rng(0).normal((n, 1), torch.float64)
    return method.trig.add_noise(x_0, Rng(1).normal((n, 1), torch.float64), t), t


@every_path
def test_tangent_is_0_at_the_exact_function_once_warm(learned, path):
    method = Method(Method.Config(), path, (1,))
    exact = learned(path, "consistency", 1.3, 0.5)
    roles, (x_t, t) = Roles(teacher=Gaussian(path, 1.3, 0.5), student=exact), points(method)
    assert method.tangent(roles, x_t, t, {}, 1.0)[1].abs().max() < 1e-6
    assert method.tangent(roles, x_t, t, {}, 0.5)[1].abs().max() > 0.05, "a bias by design"


@every_path
def test_tangent_is_the_derivative_of_the_student_s_x_0(learned, path):
    """cos(t) d x_0 / dt along the teacher's ODE, for a student far from it."""
    method, student = Method(Method.Config(), path, (1,)), learned(path, "consistency", 0.4, 0.9)
    teacher, (x_t, t) = Gaussian(path, 1.3, 0.5), points(method)
    velocity, tangent = method.tangent(Roles(teacher=teacher, student=student), x_t, t, {}, 1.0)
    on_trig = Repathed(student, method.trig)
    slope = Repathed(teacher, method.trig).predict(x_t, t, {}, "velocity")
    _, moved = on_trig.jvp(x_t, t, {}, "x_0", slope, torch.ones_like(t))
    want = torch.cos(t)[:, None] * moved
    assert torch.allclose(tangent, want.detach(), atol=1e-7)
    assert want.abs().max() > 0.1
    assert velocity.requires_grad and not tangent.requires_grad


@pytest.mark.parametrize("path", [RectifiedFlow(), EDM()])
def test_derivatives_agree(learned, path):
    found = []
    for derivative in ("func", "difference", "kernel"):
        method = Method(Method.Config(derivative=derivative), path, (1,))
        student = learned(path, "consistency", 0.4, 0.9)
        roles, (x_t, t) = Roles(teacher=Gaussian(path, 1.3, 0.5), student=student), points(method)
        found.append(method.tangent(roles, x_t, t, {}, 1.0)[1])
    assert (found[1] - found[0]).abs().max() < 1e-5 * found[0].abs().max()
    assert torch.equal(found[0], found[2])


class Backwards(Method):
    """The broken twin: the tangent's sign."""

    def tangent(self, *given):
        velocity, tangent = super().tangent(*given)
        return velocity, -tangent


class Blind(Method):
    """The broken twin: the derivative in x alone, t held still."""

    def tangent(self, roles, x_t, t, cond, r):
        still = Roles({**roles, "student": roles["student"]})
        velocity, tangent = super().tangent(still, x_t, t, cond, r)
        rate = (torch.cos(t) * torch.sin(t)).to(t.dtype)
        on_trig = Repathed(roles["student"], self.trig)
        _, by_t = on_trig.jvp(x_t, t, cond, "velocity", torch.zeros_like(x_t), rate)
        return velocity, tangent + r * by_t.detach()


def trained(fit, learned, path, cls, steps):
    method = cls(cls.Config(), path, (1,))
    return fit(method, learned(path, "consistency"), {"weight": LogWeight()}, steps=steps)


def test_learns_the_consistency_function(fit, learned, error, path):
    """Without the bias that a grid of times has."""
    assert error(trained(fit, learned, path, Method, 600)) < 0.02


@pytest.mark.parametrize("cls", [Backwards, Blind])
def test_the_broken_twins_fail(fit, learned, error, path, cls):
    assert error(trained(fit, learned, path, cls, 200)) > 0.1


def test_the_tangent_is_warmed_up_over_its_share_of_the_run(learned, path, teacher):
    method, seen = Method(Method.Config(tangent_warmup=0.5), path, (1,)), []
    tangent = method.tangent
    method.tangent = lambda *given: seen.append(given[-1]) or tangent(*given)
    roles = Roles(teacher=teacher, student=learned(path, "consistency"), weight=LogWeight())
    data = {"data": {"x_0": torch.zeros(4, 1), "cond": {}}}
    for step in (0, 25, 50, 99):
        method.loss(roles, data, Moment(method.stages()[0], step, 100), Rng(0))
    assert seen == [0.0, 0.5, 1.0, 1.0]


@every_path
def test_times_lie_within_the_student_s_path(path):
    method = Method(Method.Config(time_mean=0.0, time_std=20.0), path, (1,))
    t = method._times((512,), Rng(0)).double()
    angle = method.trig.angle(t)
    ends = path.angle(torch.tensor([path.t_min, path.t_max]).double())
    assert angle.min() >= ends[0] - 1e-6 and angle.max() <= ends[1] + 1e-6
    assert t.min() >= 9e-5 and t.max() < method.trig.t_max
