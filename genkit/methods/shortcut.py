"""Shortcut models: a step of size 2 d is taught to be two steps of size d, from the velocity up.

Frans et al. 2024 (arXiv 2410.12557, alg. 1). The student takes its step's end as a second time
(genkit's u(x_t, t, s), s = t - d). Most of a batch teaches s = t, the velocity; the rest teaches a
step of 2^-k its own two halves by the averaged student, the smallest half being the velocity.
Faithful in targets, their average, the sizes of steps and the share; not in: the student starts as
the teacher, whose velocity, guidance within, it is taught by default (`slope` "data" is the paper's
training from data); s is given in place of log2(1/d); the velocity is trained at s = t for any t,
where theirs bears the smallest step's label; nothing is clipped to +-4, which suits their latents
only. Only on rectified flow, where the sampler's steps are the student's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genkit import terms, times
from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.networks.more_inputs import with_second_time
from genkit.paths import expand
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(base.Method):
    family = "trajectory"
    paper = "arXiv 2410.12557"
    needs = ("data",)
    paths = ("rectified_flow",)
    any_steps = True

    @dataclass
    class Config(base.Distillation):
        lr: float = 5e-4
        ema: float = 0.999
        """Rate of the average that is sampled and delivered, and that gives the targets."""
        weight_decay: float = 0.0
        """AdamW's weight decay; the paper's 0.1 belongs to its long training from data."""
        slope: Literal["teacher", "data"] = "teacher"
        """The velocity that is taught at s = t: the teacher's, or each sample's."""
        base_steps: int = 64
        """Steps so small that the velocity serves for them; a power of 2."""
        long_share: float = 0.25
        """Share of the samples that teach longer steps (the paper's 1/8, of larger batches)."""
        steps: int = 1
        """Evaluations of the delivered student."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.halvings = round(math.log2(max(config.base_steps, 1)))
        if config.base_steps < 2 or 2**self.halvings != config.base_steps:
            raise ValueError(f"base_steps is {config.base_steps}; give a power of 2, from 2 on")

    def stages(self) -> list[Stage]:
        return [Stage("train", guidance=self.guidance)]

    def nets(self) -> dict[str, Role]:
        return {"student": self.student(change=with_second_time)}

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data, student = batch["data"], roles["student"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        eps, (t, s) = self.path.noise(x_0.shape, rng), self._times(x_0.shape[:1], rng)
        x_t, long = self.path.add_noise(x_0, eps, t), s < t
        target = self.path.target(x_0, eps, t, "velocity")
        with torch.no_grad():  # each part of the batch asks for its own target alone
            if self.config.slope == "teacher" and not long.all():
                x, time, own = x_t[~long], t[~long], _rows(cond, ~long)
                target[~long] = roles["teacher"].predict(x, time, own, "velocity")
            if long.any():
                x, time, end, own = x_t[long], t[long], s[long], _rows(cond, long)
                target[long] = self.halves(roles["student.export"], x, time, end, own)
        error = terms.squared(student.predict(x_t, t, cond, "mean_velocity", s), target, mask)
        error = error * terms.velocity_weight(self.path.sigma(t), student.kind)
        return {"total": error.mean(), "long": (error * long).sum() / long.sum().clamp(min=1)}

    def halves(self, student: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
        """The mean of the student's velocities over the two halves of the step from t to s, both
        (b,): what it must predict over the whole (eq. 4)."""
        half = (t - s) / 2
        middle, smallest = t - half, half * self.config.base_steps < 1.5
        first = student.predict(x_t, t, cond, "mean_velocity", torch.where(smallest, t, middle))
        x_middle = x_t - expand(half.to(x_t.dtype), x_t) * first
        end = torch.where(smallest, middle, s)
        return (first + student.predict(x_middle, middle, cond, "mean_velocity", end)) / 2

    def _times(self, shape: torch.Size, rng: Rng) -> tuple[Tensor, Tensor]:
        """(t, s): for the share of long steps, from a multiple of 2^-k to the one before it; for
        the others s = t anywhere."""
        size = 2.0 ** -rng.integers(0, self.halvings, shape).float()
        number = torch.floor(rng.uniform(shape) / size) + 1
        long = rng.uniform(shape) < self.config.long_share
        # Not 0: the velocity of a prediction of x_0 divides by sigma.
        anywhere = times.uniform(self.path, shape, rng).clamp(min=1e-4)
        t = torch.where(long, number * size, anywhere)
        return t, torch.where(long, t - size, t)

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)


def _rows(cond: Cond, which: Tensor) -> dict[str, Tensor]:
    return {name: value[which] for name, value in cond.items()}
