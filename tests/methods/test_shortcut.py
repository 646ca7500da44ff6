"""Shortcut models on a Gaussian, whose exact flow map is its own two halves (card 18)."""

import pytest
import torch

from genkit.denoisers.base import Denoiser
from genkit.hub import make_scheduler
from genkit.methods.base import Roles
from genkit.methods.shortcut import Method
from genkit.paths import PATHS
from genkit.rng import Rng
from genkit.sampling import Sampler


def test_the_exact_mean_velocity_is_the_mean_of_its_halves(mean_velocity, path):
    """s(2 d) = (s(d) + s'(d)) / 2 (eq. 4), but for the smallest steps, taken as Euler's."""
    method = Method(Method.Config(base_steps=1024), path, (1,))
    t = torch.linspace(0.3, 1, 16).double()
    s, x_t = t - torch.linspace(0.1, 0.3, 16), Rng(0).normal((16, 1), torch.float64)
    exact = mean_velocity(path, 1.3, 0.5)
    want = exact.predict(x_t, t, {}, "mean_velocity", s)
    assert torch.allclose(method.halves(exact, x_t, t, s, {}), want, atol=1e-12)
    coarse = Method(Method.Config(base_steps=8), path, (1,))
    assert (coarse.halves(exact, x_t, t, s, {}) - want).abs().max() > 1e-3


class Perfect(Denoiser):
    """The student that has learned every size of step: it predicts the target itself."""

    def __init__(self, method, teacher):
        super().__init__(method.path, "velocity", two_time=True)
        self.method, self.teacher = method, teacher

    def raw(self, x_t, timestep, cond, s=None):
        if bool((s == timestep).all()):
            return self.teacher.predict(x_t, timestep, cond, "velocity")
        return self.method.halves(self, x_t, timestep, s, cond)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_perfect_student_composes_the_base_steps(path, teacher, steps):
    """Any number of its steps is exactly base_steps steps of Euler, no worse and no better."""
    method = Method(Method.Config(base_steps=8, steps=steps), path, (1,))
    noise = torch.linspace(-2, 2, 5).double()[:, None]

    def drawn(denoiser, n):
        scheduler = make_scheduler(Sampler(n), path, "velocity", 1.0)
        with torch.no_grad():
            return denoiser.sample(noise, {}, scheduler, n)

    want = drawn(teacher, 8)
    assert torch.allclose(drawn(Perfect(method, teacher), steps), want, atol=1e-6)
    assert (drawn(teacher, steps) - want).abs().max() > 0.02


class Whole(Method):
    """The broken twin: both halves start at x_t."""

    def halves(self, student, x_t, t, s, cond):
        middle = (t + s) / 2
        one = student.predict(x_t, t, cond, "mean_velocity", middle)
        return (one + student.predict(x_t, middle, cond, "mean_velocity", s)) / 2


@pytest.mark.parametrize("cls", [Method, Whole])
def test_learns_the_mean_velocity(mean_velocity, fit, error, path, cls):
    """Up to the error of 64 Euler steps; the toy's two numbers serve every step at once, so that
    only the long steps tell right from wrong."""
    method = cls(cls.Config(long_share=0.9 if cls is Whole else 0.5), path, (1,))
    student = fit(method, mean_velocity(path), steps=300)
    assert (error(student) < 0.03) is (cls is Method)


@pytest.mark.parametrize("base_steps", [2, 16])
def test_times_are_neighbouring_multiples_of_a_power_of_2(path, base_steps):
    method = Method(Method.Config(base_steps=base_steps, long_share=0.5), path, (1,))
    t, s = method._times((8000,), Rng(0))
    long, size = s < t, t - s
    assert abs(long.float().mean() - 0.5) < 0.03
    sizes = {2.0**-k for k in range(method.halvings)}
    assert set(size[long].tolist()) == sizes, "the smallest is two base steps"
    assert ((t / size)[long] % 1 == 0).all() and t.max() <= 1 and s.min() >= 0
    counts = torch.stack([(size == each).float().mean() for each in sizes])
    assert counts.max() < 1.3 * counts.min()


def test_targets_come_from_the_average(mean_velocity, path, teacher):
    method = Method(Method.Config(long_share=1.0), path, (1,))
    roles = Roles(teacher=teacher, student=mean_velocity(path))
    data = {"data": {"x_0": torch.zeros(64, 1), "cond": {}}}
    totals = []
    for average in (mean_velocity(path), mean_velocity(path, 9.0)):
        roles["student.export"] = average
        losses = method.loss(roles, data, None, Rng(0))
        losses["total"].backward()
        assert average.mean.grad is None
        totals.append(losses["total"].item())
    assert totals[0] < 0.1 < totals[1]


def test_each_part_of_a_batch_asks_for_its_own_target_alone(mean_velocity, path, teacher):
    """Two evaluations of a long step and one of the teacher's velocity, with their conditions."""
    method, rows = Method(Method.Config(long_share=0.25), path, (1,)), {}

    class Asked(Denoiser):
        def __init__(self, name, inner):
            super().__init__(path, "velocity", two_time=inner.two_time)
            self.name, self.inner = name, inner

        def raw(self, x_t, timestep, cond, s=None):
            assert len(cond["row"]) == len(x_t)
            rows.setdefault(self.name, []).append(cond["row"])
            return self.inner.raw(x_t, timestep, cond, s)

    student = mean_velocity(path)
    roles = Roles(teacher=Asked("teacher", teacher), student=student)
    roles["student.export"] = Asked("average", student)
    data = {"x_0": torch.zeros(64, 1), "cond": {"row": torch.arange(64)}}
    method.loss(roles, {"data": data}, None, Rng(0))
    (short,), (first, second) = rows["teacher"], rows["average"]
    assert torch.equal(first, second) and 4 < len(first) < 32
    assert sorted([*short.tolist(), *first.tolist()]) == list(range(64))


@pytest.mark.parametrize("base_steps", [0, 1, 12])
def test_steps_that_are_no_power_of_2_are_refused(path, base_steps):
    with pytest.raises(ValueError, match="power of 2"):
        Method(Method.Config(base_steps=base_steps), path, (1,))


@pytest.mark.parametrize("name", [name for name in PATHS if name != "rectified_flow"])
def test_other_paths_are_refused(name):
    with pytest.raises(ValueError, match="only rectified_flow"):
        Method(Method.Config(), PATHS[name](), (1,))
