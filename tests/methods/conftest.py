"""One-dimensional students with two numbers to learn, on which every method has a known answer."""

import copy
import math

import pytest
import torch
from torch import nn

from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.base import Denoiser
from genkit.hub import make_scheduler
from genkit.methods.base import Moment, Roles
from genkit.paths import RectifiedFlow, expand, wide
from genkit.rng import Rng

MEAN, STD = 1.3, 0.5


class Learned(Denoiser):
    """x_0-prediction with a learned mean and std, of one of three forms.

    "posterior": E[x_0 | x_t] of N(mean, std^2), as a teacher or a fake score has it.
    "consistency": the end of that Gaussian's trajectory; from pure noise, mean + std z.
    "coupled": the x_0 of the straight line through x_t whose ends are tied, x_0 = mean + std eps.
    """

    def __init__(self, path, form, mean=0.0, std=1.0):
        super().__init__(path, "x_0", time_scale=1000.0)
        self.form = form
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.std = nn.Parameter(torch.tensor(std, dtype=torch.float64))

    def raw(self, x_t, timestep, cond, s=None):
        t = expand(wide(timestep) / self.time_scale, x_t)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        centred = x_t.double() - alpha * self.mean
        if self.form == "posterior":
            gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        elif self.form == "consistency":
            gain = self.std / torch.sqrt(alpha**2 * self.std**2 + sigma**2)
        else:
            gain = self.std / (alpha * self.std + sigma)
        return (self.mean + gain * centred).to(x_t.dtype)


class MeanVelocity(Denoiser):
    """u(x, t, s) of N(mean, std^2), mean and std learned."""

    def __init__(self, path, mean=0.0, std=1.0):
        super().__init__(path, "velocity", time_scale=1000.0, two_time=True)
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.std = nn.Parameter(torch.tensor(std, dtype=torch.float64))

    def raw(self, x_t, timestep, cond, s=None):
        t, s = (expand(wide(each) / self.time_scale, x_t) for each in (timestep, s))
        x, c = x_t.double(), self.std
        root_t, root_s = (torch.sqrt((1 - each) ** 2 * c**2 + each**2) for each in (t, s))
        # (root_t - root_s) / (t - s) without a quotient of small numbers.
        slope = ((t + s) * (1 + c**2) - 2 * c**2) / (root_t + root_s)
        return (-self.mean + (x - (1 - t) * self.mean) * slope / root_t).to(x_t.dtype)


@pytest.fixture
def path():
    return RectifiedFlow()


@pytest.fixture
def teacher(path):
    return Gaussian(path, MEAN, STD)


@pytest.fixture
def learned():
    return Learned


@pytest.fixture
def mean_velocity():
    return MeanVelocity


def batch_of(n, step):
    """Data, and pairs of the teacher's exact flow map x_0 = MEAN + STD eps."""
    rng = Rng(0, "toy", step)
    data, eps, cond = rng.normal((n, 1)), rng.normal((n, 1)), {"label": torch.zeros(n).long()}
    return {
        "data": {"x_0": MEAN + STD * data, "cond": cond},
        "pairs": {"eps": eps, "x_0": MEAN + STD * eps, "cond": cond},
    }


@pytest.fixture
def fit(teacher):
    """fit(method, student, others, stage, steps) -> the student after training, in the order of
    turns and averages that the Trainer has."""

    def run(method, student, others=None, stage=0, steps=300, n=512, lr=0.03):
        method.scheduler = make_scheduler(method.sampler(), method.path, "x_0", 1000.0)
        trained = {"student": student, **(others or {})}
        roles = Roles(teacher=teacher, **trained)
        nets = method.nets()
        averages = {f"student.{name}": ema for name, ema in nets["student"].ema.items()}
        roles.update({name: copy.deepcopy(student) for name in averages})
        adam = {k: torch.optim.Adam(m.parameters(), lr=lr) for k, m in trained.items()}
        step_of, turn_index = method.stages()[stage], 0
        for step in range(steps):
            moment = Moment(step_of, step, steps)
            for turn in method.turns(moment):
                roles.turn, turn_index = turn, turn_index + 1
                for name, module in trained.items():
                    module.requires_grad_(name in turn)
                losses = method.loss(roles, batch_of(n, turn_index), moment, Rng(1, turn_index))
                losses["total"].backward()
                for name in turn:
                    decay = 0.5 * (1 + math.cos(math.pi * step / steps))
                    adam[name].param_groups[0]["lr"] = lr * decay
                    adam[name].step()
                    adam[name].zero_grad()
            for name, ema in averages.items():
                for old, new in zip(roles[name].parameters(), student.parameters(), strict=True):
                    old.data.lerp_(new.data, 1 - ema.rate(step + 1))
        return student

    return run


@pytest.fixture
def error():
    """The larger of the errors in mean and std."""

    def measure(student):
        return max(abs(student.mean.item() - MEAN), abs(student.std.item() - STD))

    return measure
