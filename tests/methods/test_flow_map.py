"""The flow map of a Gaussian: its composition law, and the stock sampler at any number of steps."""

import pytest
import torch

from genkit.denoisers.analytic import Gaussian
from genkit.hub import make_scheduler
from genkit.methods.base import Moment, Roles
from genkit.methods.flow_map import Method
from genkit.paths import PATHS, expand
from genkit.rng import Rng


def inputs(method, n=256):
    t, s = (each.double() for each in method.times((n,), Rng(1)))
    return 1.5 * Rng(0).normal((n, 1), torch.float64), t, s


@pytest.mark.parametrize("solver, order", [("euler", 1), ("heun", 2)])
def test_the_exact_map_is_its_own_target_up_to_the_solver_s_error(
    mean_velocity, path, teacher, solver, order
):
    """X(t -> s) = X(r -> s) o X(t -> r): the error of u falls as the step's, times its length."""
    exact, errors = mean_velocity(path, 1.3, 0.5), []
    x_t, t, s = inputs(Method(Method.Config(), path, (1,)))
    roles = Roles({"teacher": teacher, "student.target": exact})
    want = exact.predict(x_t, t, {}, "mean_velocity", s)
    for intervals in (64, 128):
        method = Method(Method.Config(intervals=intervals, solver=solver), path, (1,))
        long = (t - s > 1 / 64) & (t > 0.07)
        got = method.target(roles, x_t, t, s, {})
        errors.append((got - want)[long].square().mean())
    assert torch.log2(errors[0] / errors[1]) > 2 * (order + 1) - 0.5
    assert errors[0] < 1e-3


def test_a_short_step_is_the_teacher_s_alone(mean_velocity, path, teacher):
    method = Method(Method.Config(intervals=8, solver="euler"), path, (1,))
    x_t, t = Rng(0).normal((9, 1), torch.float64), torch.linspace(0.2, 1, 9).double()
    roles = Roles({"teacher": teacher, "student.target": mean_velocity(path, 9.0, 9.0)})
    got = method.target(roles, x_t, t, t - 0.1, {})
    assert torch.allclose(got, teacher.predict(x_t, t, {}, "velocity"), atol=1e-6)


class Twice(Method):
    """The broken twin: the rest starts at x_t, not where the teacher's step ended."""

    def target(self, roles, x_t, t, s, cond):
        class Still:
            def ode_step(self, x, *given):
                return x

        r = torch.maximum(t - 1 / self.config.intervals, s)
        r = torch.where(r < 0.05, s, r)
        moved = super().target(roles, x_t, t, s, cond)
        still = super().target(Roles({**roles, "teacher": Still()}), x_t, t, s, cond)
        x_r = roles["teacher"].ode_step(x_t, t, r, cond, self.config.solver)
        own = still + (x_t - x_r) / expand(t - s, x_t)
        return torch.where(expand(r > s, x_t), own, moved).detach()


class Short(Method):
    """The broken twin: the whole is divided by the rest's length."""

    def target(self, roles, x_t, t, s, cond):
        r = torch.maximum(t - 1 / self.config.intervals, s)
        rest = torch.where(r > s, r - s, t - s)
        return super().target(roles, x_t, t, s, cond) * expand((t - s) / rest, x_t)


@pytest.mark.parametrize("cls", [Method, Short, Twice])
def test_learns_the_flow_map(mean_velocity, fit, error, path, cls):
    method = cls(cls.Config(intervals=8, instant=0.0), path, (1,))
    student = fit(method, mean_velocity(path), steps=300)
    assert (error(student) < 0.03) is (cls is Method)


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_any_number_of_stock_steps_ends_alike(mean_velocity, path, steps):
    method = Method(Method.Config(steps=4), path, (1,))
    method.scheduler = make_scheduler(method.sampler(), path, "velocity", 1000.0)
    assert type(method.scheduler).__name__ == "FlowMapEulerDiscreteScheduler"
    noise = torch.linspace(-2, 2, 5).double()[:, None]
    got = method.sample(mean_velocity(path, 1.3, 0.5), noise, {}, steps)
    assert torch.allclose(got, 1.3 + 0.5 * noise, atol=1e-6)


def test_stock_steps_with_their_r_are_the_same(mean_velocity, path):
    """FlowMapEuler told where each step ends, as AnyFlow's own pipeline tells it."""
    method = Method(Method.Config(steps=4), path, (1,))
    scheduler = make_scheduler(method.sampler(), path, "velocity", 1000.0)
    exact, x = mean_velocity(path, 1.3, 0.5), torch.linspace(-2, 2, 5)[:, None]
    noise = x.clone()
    scheduler.set_timesteps(4)
    ends = [*scheduler.timesteps[1:], torch.tensor(0.0)]
    for t, r in zip(scheduler.timesteps, ends, strict=True):
        u = exact.raw(x, t.expand(5), {}, r.expand(5))
        x = scheduler.step(u, t, x, r_timestep=r).prev_sample
    assert torch.allclose(x, 1.3 + 0.5 * noise, atol=1e-5)


def test_times_are_of_three_sorts(path):
    method = Method(Method.Config(whole=0.25, instant=0.25, intervals=16), path, (1,))
    t, s = method.times((20_000,), Rng(0))
    assert (s < t).all() and s.min() == 0 and t.max() < 1
    near = (t - s - 1 / 16).abs() < 1e-6
    assert abs(near.float().mean() - 0.25) < 0.04
    # A quarter by choice, and those that would be nearer to 0 than .05.
    assert 0.25 < (s == 0).float().mean() < 0.42 and ((s == 0) | (s >= 0.05)).all()


def test_the_average_gives_the_target_without_gradient(mean_velocity, path, teacher):
    method = Method(Method.Config(), path, (1,))
    roles = Roles(teacher=teacher, student=mean_velocity(path))
    batch, totals = {"data": {"x_0": torch.zeros(64, 1), "cond": {}}}, []
    for average in (mean_velocity(path), mean_velocity(path, 9.0)):
        roles["student.target"] = average
        losses = method.loss(roles, batch, Moment(method.stages()[0], 0, 1), Rng(0))
        losses["total"].backward()
        assert average.mean.grad is None
        totals.append(losses["total"].item())
    assert totals[0] < totals[1]


@pytest.mark.parametrize("name", [name for name in PATHS if name != "rectified_flow"])
def test_other_paths_are_refused(name):
    with pytest.raises(ValueError, match="only rectified_flow"):
        Method(Method.Config(), PATHS[name](), (1,))


def test_the_teacher_needs_no_second_time(path):
    assert not Gaussian(path, 0.0, 1.0).two_time
