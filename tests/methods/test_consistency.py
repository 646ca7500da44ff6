"""Consistency distillation on a Gaussian, whose consistency map is a closed form (card 4)."""

import pytest
import torch

from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.base import Denoiser
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


class Exact(Denoiser):
    """The end of a Gaussian's trajectory at t_min, as x_0."""

    def __init__(self, teacher):
        super().__init__(teacher.path, "x_0")
        self.teacher = teacher

    def raw(self, x_t, timestep, cond, s=None):
        first = torch.tensor(self.path.t_min).double()
        return self.teacher.consistency(x_t, timestep, cond) / self.path.alpha(first)


@pytest.mark.parametrize("path", [RectifiedFlow(), TrigFlow(), VP(), EDM(sigma_max=20.0)])
@pytest.mark.parametrize("solver, least", [("euler", 3.6), ("heun", 5.4)])
def test_loss_at_the_exact_map_falls_with_the_solver_s_order(path, solver, least):
    """Squared error of one Euler step is O(step^4), of Heun O(step^6): slopes 4 and 6."""
    config = Method.Config(solver=solver)
    teacher = Gaussian(path, 1.3, 0.5)
    exact = Exact(teacher)
    roles = Roles(teacher=teacher, student=exact)
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


# ---- Training by data alone: ct, ict, ect ---------------------------------------------------


def method_of(recipe, path, **config):
    return Method(Method.Config(recipe=recipe, **config), path, (1,))


RECIPES = {
    "ct": {"first_intervals": 4, "last_intervals": 16, "target_ema": 0.7},
    "ict": {"first_intervals": 8, "last_intervals": 64, "huber": 0.3, "time_mean": 0.0},
    "ect": {"ect_stages": 6, "huber": 0.3, "time_mean": 0.0},
}


@pytest.mark.parametrize("recipe, config", RECIPES.items())
def test_learns_the_consistency_map_from_data(fit, learned, error, path, recipe, config):
    method = method_of(recipe, path, **config)
    assert error(fit(method, learned(path, "consistency"), steps=600, n=1024)) < 0.1


class OtherNoise(Method):
    """The broken twin: the two times of a pair have each its own noise."""

    def loss(self, roles, batch, moment, rng):
        method, draws = self, Rng(7, moment.step)

        class Path(type(self.path)):
            def add_noise(self, x_0, eps, t):
                return super().add_noise(x_0, draws.normal(x_0.shape), t)

        before, method.path = method.path, Path()
        try:
            return super().loss(roles, batch, moment, rng)
        finally:
            method.path = before


def test_the_twin_of_the_data_recipes_fails(fit, learned, error, path):
    config = OtherNoise.Config(recipe="ect", **RECIPES["ect"])
    student = fit(OtherNoise(config, path, (1,)), learned(path, "consistency"), n=1024)
    assert error(student) > 0.15


def mean_gradient(path, teacher, exact, t, s):
    """E[grad] in (mean, std) of a pair's squared error at the exact map, by quadrature over x_0 and
    eps: 24 Gauss-Hermite nodes each."""
    import numpy

    nodes, weights = numpy.polynomial.hermite_e.hermegauss(24)
    nodes, weights = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    x_0, eps = (1.3 + 0.5 * nodes).repeat_interleave(24)[:, None], nodes.repeat(24)[:, None]
    weight = weights.repeat_interleave(24) * weights.repeat(24)
    times = [torch.full((576,), each).double() for each in (t, s)]
    here, there = (exact.predict(path.add_noise(x_0, eps, each), each, {}, "x_0") for each in times)
    loss = (weight * (here - there.detach())[:, 0] ** 2).sum()
    return torch.stack(torch.autograd.grad(loss, [exact.mean, exact.std])).abs().max()


def test_the_mean_gradient_at_the_exact_map_vanishes_with_the_step_only(path, teacher, learned):
    """Data's own noise is right on average, to first order in t - s (card 4)."""
    exact = learned(path, "consistency", 1.3, 0.5)
    found = [mean_gradient(path, teacher, exact, 0.6, 0.6 - dt) for dt in (0.2, 0.1, 0.05)]
    assert found[0] > found[1] > found[2] > 1e-5
    assert torch.log2(found[1] / found[2]) > 0.8


def test_ct_s_grid_and_average_follow_the_paper():
    """N(k) = ceil(sqrt(k/K ((s_1 + 1)^2 - s_0^2) + s_0^2) - 1) + 1, mu = exp(s_0 ln mu_0 / N)."""
    config = {"first_intervals": 2, "last_intervals": 150, "target_ema": 0.95}
    method = method_of("ct", RectifiedFlow(), **config)
    stage, average = method.stages()[0], method.nets()["student"].ema["target"]
    seen = []
    for step in (0, 1, 50, 100):
        moment = Moment(stage, step, 100)
        method.pair(moment, torch.Size([4]), Rng(0))
        seen.append((method.intervals(moment), average.rate(step + 1)))
    assert [n for n, _ in seen] == [2, 16, 107, 150]
    assert [mu for _, mu in seen] == pytest.approx([0.95 ** (2 / n) for n, _ in seen])


def test_ict_draws_times_log_normal_over_its_grid():
    method = method_of("ict", EDM(), first_intervals=32, last_intervals=32)
    moment = Moment(method.stages()[0], 0, 1)
    t, s, weight = method.pair(moment, torch.Size([40_000]), Rng(0))
    assert torch.allclose(weight, 1 / (t - s), rtol=1e-3) and (s < t).all()
    middle = ((t + s) / 2).log()
    assert abs(middle.mean() + 1.1) < 0.3 and abs(middle.std() - 2.0) < 0.4


def test_ect_s_second_time_nears_the_first():
    """r(t) = t - t (1 - rho)(1 + 8 sigmoid(-t)), 1 - rho halved in each stage, at least .001."""
    method = method_of("ect", EDM(), ect_stages=8)
    stage = method.stages()[0]
    for step, gap in ((0, 0.5), (13, 0.25), (99, 2.0**-8)):
        t, s, weight = method.pair(Moment(stage, step, 100), torch.Size([4000]), Rng(0))
        want = t - t * gap * (1 + 8 * torch.sigmoid(-t))
        assert torch.allclose(s, want.clamp(min=0), atol=1e-5, rtol=1e-4)
        assert torch.allclose(weight, 1 / (t - want.clamp(min=0)), rtol=1e-2)
    first = method.pair(Moment(stage, 0, 100), torch.Size([4000]), Rng(0))
    assert (first[1] == 0).any(), "some begin at data itself"


@pytest.mark.parametrize("recipe", ["ct", "ict", "ect"])
def test_data_recipes_ask_no_teacher_and_stop_gradients_at_the_target(learned, path, recipe):
    method, student = method_of(recipe, path), learned(path, "consistency")
    target = learned(path, "consistency")
    roles = Roles({"student": student, "student.target": target})
    batch = {"data": {"x_0": 1.3 + 0.5 * Rng(0).normal((64, 1), torch.float64), "cond": {}}}
    method.loss(roles, batch, Moment(method.stages()[0], 50, 100), Rng(0))["total"].backward()
    assert target.mean.grad is None and student.mean.grad.abs() > 0
    assert ("target" in method.nets()["student"].ema) is (recipe == "ct")
    guided = method_of(recipe, path, guidance=3.0)
    assert guided.stages()[0].guidance == 1, "the data is not guided"


@pytest.mark.parametrize("path", [RectifiedFlow(), EDM(), VP(), TrigFlow(0.5)])
def test_the_target_at_t_min_is_x_on_every_path(path, learned):
    """f(x, t_min) = x: whatever the target network says there (on EDM, sigma is not 0 there)."""
    method, losses = method_of("ct", path, first_intervals=1, last_intervals=1), []
    batch = {"data": {"x_0": 1.3 + 0.5 * Rng(0).normal((64, 1), torch.float64), "cond": {}}}
    for mean in (0.0, 9.0):
        roles = Roles({"student": learned(path, "consistency")})
        roles["student.target"] = learned(path, "consistency", mean, 0.1)
        losses.append(method.loss(roles, batch, Moment(method.stages()[0], 0, 1), Rng(2))["total"])
    assert losses[0] == losses[1] > 0


def test_both_ends_have_one_dropout_mask(path):
    """A network that is nothing but dropout answers alike at both ends."""

    class Dropped(Denoiser):
        def __init__(self):
            super().__init__(path, "x_0")
            self.one = torch.nn.Parameter(torch.ones(()))

        def raw(self, x_t, timestep, cond, s=None):
            return torch.nn.functional.dropout(self.one * torch.ones_like(x_t), 0.5)

    student = Dropped()
    method = method_of("ct", path, first_intervals=64, last_intervals=64)
    batch = {"data": {"x_0": torch.ones(512, 4), "cond": {}}}
    roles = Roles({"student": student, "student.target": student})
    t, s, _ = method.pair(Moment(method.stages()[0], 0, 1), torch.Size([512]), Rng(2))
    before = torch.get_rng_state()
    loss = method.loss(roles, batch, Moment(method.stages()[0], 0, 1), Rng(2))["total"]
    assert torch.equal(torch.get_rng_state(), before)
    # Only the pairs that end at t_min, whose target is x, differ.
    assert loss < 3 * (s == 0).float().mean() + 1e-6
