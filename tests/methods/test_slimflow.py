"""SlimFlow on Gaussians: annealed noise stays unit, its flow has card 2's slope and least loss, and
the guide is zero exactly where one step is as good as two."""

import math

import pytest
import torch

from genkit.denoisers.base import NetworkDenoiser
from genkit.methods.base import Moment, Roles
from genkit.methods.slimflow import Method
from genkit.paths import RectifiedFlow
from genkit.rng import Rng


class Unscaled(Method):
    """The broken twin: noises are mixed with weights that add up, 1 - beta and beta."""

    def annealed(self, eps, beta, rng):
        return (1 - beta) * eps + beta * self.path.noise(eps.shape, rng).to(eps.dtype)


class Straight(Method):
    """With the straight flow that the first stage ends in as the teacher of the second."""

    flow = None

    def guide(self, roles, pairs, rng):
        return super().guide(Roles({**roles, "teacher": self.flow}), pairs, rng)


@pytest.mark.parametrize("stage, form", [(0, "coupled"), (1, "consistency")])
def test_both_stages_learn_the_flow_map(fit, learned, error, path, stage, form):
    method = Straight(Straight.Config(), path, (1,))
    method.flow = learned(path, "coupled", 1.3, 0.5)
    assert error(fit(method, learned(path, form), stage=stage)) < 0.01


def test_annealed_noise_is_unit_at_every_beta(path):
    for beta in (0.0, 0.3, 0.7, 1.0):
        for cls, unit in ((Method, True), (Unscaled, beta in (0.0, 1.0))):
            eps = Rng(1).normal((200_000, 1))
            std = cls(cls.Config(), path, (1,)).annealed(eps, beta, Rng(0)).std().item()
            assert (std == pytest.approx(1, abs=0.01)) is unit


class At(RectifiedFlow):
    """Rectified flow on which every draw of a time is one and the same."""

    def __init__(self, t):
        super().__init__()
        self.t = t

    def time(self, u):
        return torch.full_like(u, self.t)


@pytest.mark.parametrize("beta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("t", [0.3, 0.8])
def test_reflow_has_the_slope_and_least_loss_of_the_card(beta, t):
    c, rho, data = 0.5, math.sqrt(1 - beta**2), 1 - t
    var = t**2 + data**2 * c**2 + 2 * data * t * c * rho
    cov = data * c**2 - t + (1 - 2 * data) * c * rho  # of x_t and x_0 - eps'
    least = c**2 + 1 - 2 * c * rho - cov**2 / var
    eps = Rng(1).normal((400_000, 1), torch.float64)
    pairs = {"eps": eps, "x_0": c * eps, "cond": {}}

    def loss(cls, slope):
        path = At(t)
        linear = NetworkDenoiser(
            torch.nn.Identity(), lambda net, x, *_: slope * x, path, "velocity"
        )
        return cls(cls.Config(), path, (1,)).reflow(linear, pairs, beta, Rng(0)).mean().item()

    best = loss(Method, -cov / var)
    assert best == pytest.approx(least, rel=0.01, abs=1e-10)
    assert all(loss(Method, -cov / var + off) > best + 1e-4 for off in (-0.1, 0.1))
    if beta == 0.6:
        assert loss(Unscaled, -cov / var) != pytest.approx(least, rel=0.03), "twin"


@pytest.mark.parametrize("schedule", ["linear", "exp", "cosine"])
def test_beta_falls_from_one(path, schedule):
    method = Method(Method.Config(schedule=schedule, anneal=0.5), path, (1,))
    stage = method.stages()[0]
    betas = [method.beta(Moment(stage, step, 100)) for step in range(100)]
    assert betas[0] == 1 and all(a >= b for a, b in zip(betas, betas[1:], strict=False))
    assert betas[25] == pytest.approx(
        {"linear": 0.5, "exp": math.exp(-0.5), "cosine": math.sqrt(0.5)}[schedule]
    )
    assert betas[50] == pytest.approx({"exp": math.exp(-1)}.get(schedule, 0.0), abs=1e-12)


class Late(Method):
    """The broken twin: the flow is told another time than the point's own."""

    def guide(self, roles, pairs, rng):
        flow = roles["teacher"]

        class Shifted:
            def predict(self, x_t, t, cond, kind):
                return flow.predict(x_t, 1 - t, cond, kind)

        return super().guide(Roles({**roles, "teacher": Shifted()}), pairs, rng)


def test_the_guide_is_zero_where_the_student_is_on_a_straight_flow(learned, path):
    pairs = {"x_0": torch.zeros(64, 1).double(), "cond": {}}
    flow, right = learned(path, "coupled", 1.3, 0.5), learned(path, "consistency", 1.3, 0.5)
    wrong = learned(path, "consistency", 1.0, 0.8)

    def guide(cls, student):
        roles = Roles(teacher=flow, student=student)
        return cls(cls.Config(), path, (1,)).guide(roles, pairs, Rng(0)).mean()

    assert guide(Method, right) < 1e-12 < 1e-3 < guide(Method, wrong)
    assert guide(Late, right) > 1e-3


def test_the_guide_gives_no_gradient_to_where_it_looks(learned, path):
    """Only the student's own x_0 is moved: the gradient is 2 (x_0 - target)."""
    pairs = {"x_0": torch.zeros(64, 1).double(), "cond": {}}
    student, flow = learned(path, "consistency", 1.0, 0.8), learned(path, "coupled", 1.3, 0.5)
    method, seen = Method(Method.Config(), path, (1,)), []

    def distance(a, b, mask):
        seen.append((a, b))
        return (a - b).square().mean(1)

    method.distance = distance
    loss = method.guide(Roles(teacher=flow, student=student), pairs, Rng(0)).mean()
    (slope,) = torch.autograd.grad(loss, student.mean)
    ((x_0, target),) = seen
    assert not target.requires_grad
    assert torch.isclose(slope, 2 * (x_0 - target).mean())


def test_noise_and_sample_are_mirrored_together(path):
    method = Method(Method.Config(mirror=True), path, (1, 4, 4))
    eps = Rng(0).normal((64, 1, 4, 4))
    turned = method.mirrored({"eps": eps, "x_0": 2 * eps, "cond": {}}, Rng(1))
    assert torch.equal(turned["x_0"], 2 * turned["eps"]), "a pair stays a pair"
    rows = (turned["eps"] == eps.flip(-1)).flatten(1).all(1)
    assert 10 < rows.sum() < 54 and torch.equal(turned["eps"][~rows], eps[~rows])


def test_the_small_flow_becomes_the_teacher_of_the_last_stage(path):
    stages = Method(Method.Config(guidance=3.0), path, (1,)).stages()
    assert [stage.name for stage in stages] == ["reflow", "distill"]
    assert stages[1].start == {"teacher": "student"} and stages[1].new_data
    assert (stages[0].guidance, stages[1].guidance) == (3.0, 1.0)


@pytest.mark.parametrize("config", [{"anneal": 0.0}, {"reflow_share": 1.0}, {"schedule": "step"}])
def test_what_cannot_be_is_refused(path, config):
    with pytest.raises(ValueError, match=next(iter(config))):
        Method(Method.Config(**config), path, (1,))
    with pytest.raises(ValueError, match="Gaussian"):
        Method(Method.Config(), RectifiedFlow(dimensions=8.0), (1,))
