"""Consistency distillation on a Gaussian, whose consistency map is a closed form (card 4)."""

import pytest
import torch

from genkit.denoisers.analytic import Gaussian
from genkit.methods.base import Moment, Roles
from genkit.methods.consistency import Method
from genkit.paths import EDM, VP, RectifiedFlow, TrigFlow
from genkit.rng import Rng


@pytest.mark.parametrize("solver, bias", [("euler", 0.1), ("heun", 0.02)])
def test_learns_the_consistency_map(fit, learned, error, path, solver, bias):
    """Up to the bias of 32 intervals: .07 with Euler's error, a tenth of that with Heun's."""
    config = Method.Config(solver=solver, first_intervals=4, last_intervals=32)
    student = fit(Method(config, path, (1,)), learned(path, "consistency"), steps=600)
    assert error(student) < bias


class NoTeacher(Method):
    """The broken twin: x_s is x_t rescaled, not a step of the teacher's."""

    def loss(self, roles, batch, moment, rng):
        still = Gaussian(self.path, 0.0, 1.0)
        return super().loss(Roles({**roles, "teacher": still}), batch, moment, rng)


def test_the_broken_twin_fails(fit, learned, error, path):
    method = NoTeacher(NoTeacher.Config(), path, (1,))
    assert error(fit(method, learned(path, "consistency"))) > 0.1


@pytest.mark.parametrize("path", [RectifiedFlow(), TrigFlow(), VP(), EDM(sigma_max=20.0)])
@pytest.mark.parametrize("solver, least", [("euler", 3.6), ("heun", 5.4)])
def test_loss_at_the_exact_map_falls_with_the_solver_s_order(learned, path, solver, least):
    """Squared error of one Euler step is O(step^4), of Heun O(step^6): slopes 4 and 6."""
    config = Method.Config(solver=solver)
    exact = learned(path, "consistency", 1.3, 0.5)
    roles = Roles(teacher=Gaussian(path, 1.3, 0.5), student=exact)
    roles["student.target"] = exact
    losses = []
    for n in (64, 128):
        config.first_intervals = config.last_intervals = n
        method = Method(config, path, (1,))
        x_0 = 1.3 + 0.5 * Rng(0).normal((8192, 1), torch.float64)
        data = {"data": {"x_0": x_0, "cond": {}}}
        losses.append(method.loss(roles, data, Moment(method.stages()[0], 0, 1), Rng(2))["total"])
    assert torch.log2(losses[0] / losses[1]) > least


def test_the_target_at_sigma_0_is_x_whatever_the_network(path, learned, teacher):
    """With one interval every target is the end of the teacher's step."""
    method = Method(Method.Config(solver="euler", first_intervals=1, last_intervals=1), path, (1,))
    data = {"data": {"x_0": 1.3 + 0.5 * Rng(0).normal((64, 1), torch.float64), "cond": {}}}
    student, losses = learned(path, "consistency"), []
    for mean in (0.0, 9.0):
        roles = Roles(teacher=teacher, student=student)
        roles["student.target"] = learned(path, "posterior", mean, 0.0)
        losses.append(method.loss(roles, data, Moment(method.stages()[0], 0, 1), Rng(2))["total"])
    assert losses[0] == losses[1] > 0


def test_intervals_double_over_the_stage():
    method = Method(Method.Config(first_intervals=8, last_intervals=64), RectifiedFlow(), (1,))
    stage = method.stages()[0]
    seen = [method.intervals(Moment(stage, step, 100)) for step in (0, 24, 25, 50, 75, 99)]
    assert seen == [8, 8, 16, 32, 64, 64]
