"""SLAM: the ends of the sub-path, LCM as its gamma = 1, and the optimum on a Gaussian (card 19)."""

import pytest
import torch

from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.base import Denoiser
from genkit.methods import lcm
from genkit.methods.base import Moment, Roles
from genkit.methods.slam import Method
from genkit.paths import VP, DiscreteVP
from genkit.rng import Rng
from genkit.training.roles import Networks

paths = pytest.mark.parametrize("path", [VP(), DiscreteVP()])


def points(path, n=6):
    t, s = path.time(torch.full((n,), 0.7)), path.time(torch.full((n,), 0.6))
    x_t, x_s = Rng(0).normal((n, 2), torch.float64), Rng(1).normal((n, 2), torch.float64)
    return x_t, t, x_s, s


@paths
def test_the_ends_of_the_sub_path(path):
    """gamma = 1 is x_t with sigma_t, to the bit; gamma = 0 is x_s rescaled, with its sigma."""
    method, (x_t, t, x_s, s) = Method(Method.Config(), path, (2,)), points(path)
    x, sigma = method.between(x_t, t, x_s, s, torch.ones(6))
    assert torch.equal(x, x_t) and torch.equal(sigma, path.sigma(t.double()))
    x, sigma = method.between(x_t, t, x_s, s, torch.zeros(6))
    ratio = path.alpha(t.double()) / path.alpha(s.double())
    assert torch.allclose(x, ratio[:, None] * x_s)
    assert torch.allclose(sigma, ratio * path.sigma(s.double()))


def test_sigma_between_is_that_of_a_random_jump():
    """The card's .473 at alpha .9 and .6, gamma .5, where the DDIM pair itself has .545."""
    path = VP()
    t, s = (path.t_of_angle(torch.arccos(torch.tensor([each]).double())) for each in (0.6, 0.9))
    method, x = Method(Method.Config(), path, (1,)), torch.zeros(1, 1).double()
    assert method.between(x, t, x, s, torch.tensor([0.5]))[1].item() == pytest.approx(
        0.473, abs=2e-3
    )


class Seen(Denoiser):
    """eps of a Gaussian's exact consistency function; what it was told is kept."""

    def __init__(self, teacher):
        super().__init__(teacher.path, "eps")
        self.teacher, self.told = teacher, []

    def raw(self, x_t, timestep, cond, s=None):
        self.told.append(cond.get("w"))
        x_0 = self.teacher.consistency(x_t, timestep, cond)
        return self.path.convert(x_0, x_t, timestep, "x_0", "eps")


def loss_of(method, teacher, seed=2):
    student, target = Seen(teacher), Seen(teacher)
    roles = Roles({"teacher": teacher, "student": student, "student.target": target})
    x_0 = 1.3 + 0.5 * Rng(0).normal((512, 1))
    batch = {"data": {"x_0": x_0, "cond": {}}}
    loss = method.loss(roles, batch, Moment(method.stages()[0], 0, 1), Rng(seed))["total"]
    return loss, student.told, target.told


@paths
def test_gamma_1_is_lcm_bit_for_bit(path):
    teacher = Gaussian(path, 1.3, 0.5)
    slam = Method(Method.Config(gamma_low=1.0), path, (1,))
    ours, told, _ = loss_of(slam, teacher)
    theirs, _, _ = loss_of(lcm.Method(lcm.Method.Config(), path, (1,)), teacher)
    assert torch.equal(ours, theirs) and torch.equal(told[0], torch.ones(512))
    assert not torch.equal(loss_of(Method(Method.Config(), path, (1,)), teacher)[0], theirs)


@paths
def test_the_target_is_asked_at_gamma_1_and_the_student_told_gamma(path):
    _, told, target = loss_of(Method(Method.Config(), path, (1,)), Gaussian(path, 1.3, 0.5))
    assert torch.equal(target[0], torch.ones(512))
    assert 1 <= told[0].min() < 1.2 and 10.8 < told[0].max() <= 11


class Wrong(Method):
    """The broken twin: the student's x_0 is read with sigma_t, as if x_gamma were x_t."""

    def between(self, x_t, t, x_s, s, gamma):
        return super().between(x_t, t, x_s, s, gamma)[0], self.path.sigma(t.double())


@pytest.mark.parametrize("cls", [Method, Wrong])
def test_an_eps_that_is_right_at_every_gamma_is_at_rest(cls):
    """With the eps that solves x_gamma = alpha_t f*(x_s) + sigma_gamma eps the loss is 0."""
    path = VP()
    teacher, (x_t, t, _, s) = Gaussian(path, 1.3, 0.5), points(path)
    x_s = teacher.ode_step(x_t, t, s, {}, "heun")
    gamma_free = Method(Method.Config(), path, (2,))
    method = cls(cls.Config(), path, (2,))
    want = teacher.consistency(x_s, s, {})

    class Right(Denoiser):
        def raw(self, x, timestep, cond, s_2=None):
            gamma = 1 - (cond["w"] - 1) / 10
            sigma = gamma_free.between(x_t, t, x_s, s, gamma)[1]
            return (x - path.alpha(t.double())[:, None] * want) / sigma[:, None]

    student = Right(path, "eps")
    got = method.here(student, x_t, t, x_s, s, {}, torch.ones(6), Rng(0))
    assert ((got - want).abs().max().item() < 1e-5) is (cls is Method)


def test_other_kinds_and_paths_are_refused():
    from genkit.paths import RectifiedFlow

    with pytest.raises(ValueError, match="does not take the path"):
        Method(Method.Config(), RectifiedFlow(), (1,))
    method, teacher = Method(Method.Config(), VP(), (1,)), Gaussian(VP(), 0.0, 1.0)
    with pytest.raises(ValueError, match="predicts eps; this one predicts velocity"):
        Networks(method, None, teacher, 0)
