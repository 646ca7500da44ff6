"""MeanFlow: learns the mean velocity between any two times, so that one step spans them.

Geng et al. 2025 (arXiv 2505.13447, alg. 1): u(x_t, t, s) is regressed on v - (t - s) du/dt, the
derivative taken along (v, 1, 0) and stopped, and x_s = x_t - (t - s) u. The student is the
teacher's network with a second time input that begins at zero; a network whose class has none is
refused. By default v is the teacher's velocity, with its guidance, as in NVIDIA's FastGen
(distillation); with `slope` "data" it is eps - x_0, the paper's, and the teacher is but the start.
Faithful in times, the share of s = t, and the adaptive weight, whose error is here a mean over
elements, not a sum, with the constant taken along; not in guidance: the paper's mixes u of the
student into v, ours is the teacher's. With `improved` it is improved MeanFlow (Geng et al. 2025,
arXiv 2512.02012): the derivative is taken along the student's own u(x_t, t, t), and
u + (t - s) sg(du/dt) is regressed on v itself, which no longer holds the network; without their
guidance as a condition and their in-context conditioning. Only on rectified flow, where the
sampler's steps are u's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genkit import terms, times
from genkit.guidance import Cond
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.networks.more_inputs import with_second_time
from genkit.paths import expand
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(base.Method):
    family = "trajectory"
    paper = "arXiv 2505.13447"
    needs = ("data",)
    paths = ("rectified_flow",)
    any_steps = True

    @dataclass
    class Config(base.Distillation):
        lr: float = 5e-4
        slope: Literal["teacher", "data"] = "teacher"
        """The velocity along which the student's is averaged: the teacher's, or each sample's."""
        improved: bool = False
        """Regress the velocity that u implies, along the student's own: improved MeanFlow."""
        instant: float = 0.75
        """Share of samples whose two times are one, on which u is the velocity itself."""
        time_mean: float = -0.4
        """Mean of logit(t), which is drawn from a normal distribution for both times."""
        time_std: float = 1.0
        """Its deviation."""
        power: float = 1.0
        """Squared errors e weigh 1 / (e + 0.001)^power; 0 is plain least squares."""
        derivative: Literal["func", "difference", "kernel"] = "func"
        """How the student's derivative is taken: exactly on torch's attention, by central
        differences, or exactly on the network's own attention."""
        steps: int = 1
        """Evaluations of the delivered student."""

    def stages(self) -> list[Stage]:
        return [Stage("train", guidance=self.guidance)]

    def nets(self) -> dict[str, Role]:
        return {"student": self.student(change=with_second_time)}

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data = batch["data"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        eps, (t, s) = self.path.noise(x_0.shape, rng), self._times(x_0.shape[:1], rng)
        x_t = self.path.add_noise(x_0, eps, t)
        slope = self.path.target(x_0, eps, t, "velocity")
        if self.config.slope == "teacher":
            with torch.no_grad():
                slope = roles["teacher"].predict(x_t, t, cond, "velocity")
        mean, target = self.target(roles, x_t, t, s, cond, slope)
        error = terms.squared(mean, target, mask)
        error = error * terms.velocity_weight(self.path.sigma(t), roles["student"].kind)
        weight = (error.detach() + 1e-3) ** -self.config.power
        return {"total": (weight * error).mean(), "error": error.mean()}

    def target(
        self, roles: Roles, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(a prediction with gradient, what it is regressed on), (b, ...): u(x_t, t, s) on
        v - (t - s) du/dt (eq. 9 and 10), or improved, u + (t - s) du/dt on v."""
        student, along = roles["student"], slope
        if self.config.improved:
            with torch.no_grad():
                along = student.predict(x_t, t, cond, "mean_velocity", t)
        ones, backend = torch.ones_like(t), self.config.derivative
        mean, moved = student.jvp(x_t, t, cond, "mean_velocity", along, ones, s, backend=backend)
        rest = expand((t - s).to(x_t.dtype), x_t) * moved.detach()
        return (mean + rest, slope) if self.config.improved else (mean, slope - rest)

    def _times(self, shape: torch.Size, rng: Rng) -> tuple[Tensor, Tensor]:
        """(t, s) with s <= t, the same for a share of the samples."""
        config = self.config
        one, two = (
            times.logit_normal(self.path, shape, rng, config.time_mean, config.time_std)
            for _ in range(2)
        )
        t, s = torch.maximum(one, two), torch.minimum(one, two)
        return t, torch.where(rng.uniform(shape) < config.instant, t, s)

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)
