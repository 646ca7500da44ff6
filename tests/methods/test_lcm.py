"""LCM on Gaussians: its boundary, its solver's order, and a student of a whole range of guidance.

With two Gaussians of one width, guidance w is the Gaussian of mean m_0 + w (m_1 - m_0) (see
test_guidance_distill), so that the consistency function of every scale is a closed form (card 3).
"""

import copy

import pytest
import torch
from torch import nn

from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.base import Denoiser
from genkit.methods.base import Moment, Roles
from genkit.methods.lcm import Method
from genkit.paths import VP, DiscreteVP, RectifiedFlow, TrigFlow, expand, wide
from genkit.rng import Rng

STD, COND, NONE = 0.5, 1.3, 0.3
UNCOND = {"label": torch.tensor([1])}


class Conditional(Denoiser):
    """The teacher: the posterior mean of N(1.3, STD^2) for label 0, of N(0.3, STD^2) for none."""

    def __init__(self, path):
        super().__init__(path, "x_0")

    def raw(self, x_t, timestep, cond, s=None):
        t = expand(wide(timestep), x_t)
        mean = torch.where(expand(cond["label"], x_t) == 0, COND, NONE)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return (mean + gain * (x_t.double() - alpha * mean)).to(x_t.dtype)


class OfScale(Denoiser):
    """The consistency function of N(base + slope w, STD^2), both learned."""

    def __init__(self, path):
        super().__init__(path, "x_0")
        self.base = nn.Parameter(torch.tensor(1.3, dtype=torch.float64))
        self.slope = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def raw(self, x_t, timestep, cond, s=None):
        t, w = expand(wide(timestep), x_t), expand(cond["w"].double(), x_t)
        mean, alpha, sigma = self.base + self.slope * w, self.path.alpha(t), self.path.sigma(t)
        gain = STD / torch.sqrt(alpha**2 * STD**2 + sigma**2)
        return (mean + gain * (x_t.double() - alpha * mean)).to(x_t.dtype)


class Exact(Denoiser):
    """The exact end, at t_min, of a Gaussian's trajectory."""

    def __init__(self, teacher):
        super().__init__(teacher.path, "x_0")
        self.teacher = teacher

    def raw(self, x_t, timestep, cond, s=None):
        return self.teacher.consistency(x_t, timestep, cond)


def loss_of(method, roles, cond, n=4096):
    x_0 = COND + STD * Rng(0).normal((n, 1), torch.float64)
    batch = {"data": {"x_0": x_0, "cond": cond}}
    return method.loss(roles, batch, Moment(method.stages()[0], 0, 1), Rng(2))["total"]


@pytest.mark.parametrize("path", [RectifiedFlow(), TrigFlow(), VP()])
@pytest.mark.parametrize("solver, least", [("euler", 3.5), ("heun", 5.2)])
def test_loss_at_the_exact_map_falls_with_the_solver_s_order(path, solver, least):
    """DDIM is of first order, so that the squared error of a step is O(step^4)."""
    teacher, losses = Gaussian(path, COND, STD), []
    exact = Exact(teacher)
    roles = Roles({"teacher": teacher, "student": exact, "student.target": exact})
    for n in (64, 128):
        config = Method.Config(solver=solver, intervals=n, huber=1.0)
        losses.append(loss_of(Method(config, path, (1,)), roles, {}))
    assert torch.log2(losses[0] / losses[1]) > least


def test_the_grid_on_discrete_vp_is_ddim_s():
    grid = Method(Method.Config(), DiscreteVP(), (1,)).grid
    assert grid.tolist() == [float(t) for t in range(999, 0, -20)] + [0.0]


@pytest.mark.parametrize("path", [RectifiedFlow(), DiscreteVP()])
def test_f_is_x_at_the_end_whatever_the_network(path, learned):
    method = Method(Method.Config(intervals=1), path, (1,))
    teacher, losses = Gaussian(path, COND, STD), []
    for mean in (0.0, 9.0):
        roles = Roles({"teacher": teacher, "student": Exact(teacher)})
        roles["student.target"] = learned(path, "consistency", mean, 0.1)
        losses.append(loss_of(method, roles, {}))
    assert losses[0] == losses[1] > 0


def method_of(cls, path=None, **config):
    settings = {"guidance": 3.0, "intervals": 10, "solver": "heun", "huber": 0.03} | config
    return cls(cls.Config(**settings), path or RectifiedFlow(), (1,), uncond=UNCOND)


def taught(method, steps=400):
    """(base, slope) of a student of all scales of the range."""
    teacher, student = Conditional(method.path), OfScale(method.path)
    target, adam = copy.deepcopy(student), torch.optim.Adam(student.parameters(), lr=0.05)
    roles = Roles({"teacher": teacher, "student": student, "student.target": target})
    for step in range(steps):
        rng = Rng(0, step)
        x_0 = COND + STD * rng.normal((128, 1), torch.float64)
        batch = {"data": {"x_0": x_0, "cond": {"label": torch.zeros(128).long()}}}
        adam.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        method.loss(roles, batch, Moment(method.stages()[0], step, steps), rng)["total"].backward()
        adam.step()
        adam.zero_grad()
        for old, new in zip(target.parameters(), student.parameters(), strict=True):
            old.data.lerp_(new.data, 0.1)
    return student.base.item(), student.slope.item()


def test_one_student_learns_every_scale_of_the_range():
    assert taught(method_of(Method)) == pytest.approx((NONE, COND - NONE), abs=0.05)


class Untold(Method):
    """The broken twin: the student is told another sample's scale than its teacher was guided
    with."""

    def _told(self, cond, w, x):
        return super()._told(cond, w.flip(0), x)


class Unguided(Method):
    """The broken twin: the teacher is asked without guidance."""

    def guided(self, teacher, w):
        return teacher


@pytest.mark.parametrize("cls", [Untold, Unguided])
def test_the_broken_twins_fail(cls):
    assert abs(taught(method_of(cls), 200)[1] - (COND - NONE)) > 0.3


def test_scale_1_is_the_conditional_teacher():
    """uncond + 1 (cond - uncond): LCM's w = 0."""
    path, cond = RectifiedFlow(), {"label": torch.zeros(4096).long()}
    method = method_of(Method, path, guidance=1.0, guidance_high=1.0, solver="euler")
    assert method.embedded_guidance is None and method.nets()["student"].change is None
    exact = Exact(Gaussian(path, COND, STD))
    roles = Roles({"teacher": Conditional(path), "student": exact, "student.target": exact})
    plain = Roles({**roles, "teacher": Gaussian(path, COND, STD)})
    none = Method(Method.Config(intervals=10, huber=0.03), path, (1,))
    assert torch.allclose(loss_of(method, roles, cond), loss_of(none, plain, {}), rtol=1e-5)


@pytest.mark.parametrize(
    "low, high, own, want", [(1.0, None, 3.0, (1.0, 5.0)), (2.0, 8.0, 3.0, (2.0, 8.0))]
)
def test_its_own_scale_is_in_the_middle_of_the_range(low, high, own, want):
    method = method_of(Method, guidance=own, guidance_low=low, guidance_high=high)
    assert method.scales == want and method.embedded_guidance == own
    assert method.nets()["student"].change is not None


def test_a_scale_outside_the_range_is_refused():
    with pytest.raises(ValueError, match="outside the range 1 to 2"):
        method_of(Method, guidance=3.0, guidance_high=2.0)
