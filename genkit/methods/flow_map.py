"""Flow map distillation: one network that steps from any time t to any s below, in one go.

With x_s = x_t - (t - s) u(x_t, t, s), the map's own composition is the target,
X(t -> s) = X(r -> s) o X(t -> r), its first piece taken by the teacher: with one solver step
x_t -> x_r of length at most 1 / `intervals`,
    u(x_t, t, s) <- sg [(x_t - x_r) + (r - s) u_average(x_r, r, s)] / (t - s),
and where that step reaches s it is the teacher's mean velocity alone. Such an any-step student is
AnyFlow's (Gu et al. 2026, arXiv 2605.13724), and its sampler is diffusers' stock FlowMapEuler, with
as many steps as one likes; the target is the discrete form of flow map matching (Boffi et al. 2024,
arXiv 2406.07507) and of consistency trajectory models (Kim et al. 2023, arXiv 2310.02279).
Not faithful to AnyFlow, whose second stage simulates the student's own inputs and matches
distributions there: only trajectories are learned here. meanflow takes r -> t as a derivative,
shortcut r in the middle without a teacher: this one needs neither a derivative nor a power of 2.
Only on rectified flow, where the sampler's steps are the map's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genkit import terms
from genkit.guidance import Cond
from genkit.methods import base
from genkit.methods.base import Batch, Ema, Losses, Moment, Role, Roles, Stage, warmed
from genkit.networks.more_inputs import with_second_time
from genkit.paths import expand
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(base.Method):
    family = "trajectory"
    paper = "arXiv 2605.13724"
    needs = ("data",)
    any_steps = True
    paths = ("rectified_flow",)

    @dataclass
    class Config(base.Distillation):
        lr: float = 5e-4
        target_ema: float = 0.95
        """Rate of the average that takes the second piece of the target."""
        intervals: int = 32
        """The teacher's step is this part of the whole clock, or what is left to s."""
        solver: Literal["euler", "heun"] = "heun"
        """The teacher's step."""
        whole: float = 0.25
        """Share of the samples whose s is 0, as one-step sampling asks; the others' is any."""
        instant: float = 0.25
        """Share of the samples whose step is so short that the teacher alone takes it."""
        steps: int = 1
        """Evaluations of the delivered student; any other number can be asked for."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if config.intervals < 1:
            raise ValueError(f"intervals is {config.intervals}; give at least 1")

    def stages(self) -> list[Stage]:
        return [Stage("train", guidance=self.guidance)]

    def nets(self) -> dict[str, Role]:
        target = {"target": Ema(warmed(self.config.target_ema))}
        return {"student": self.student(target, change=with_second_time)}

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data, student = batch["data"], roles["student"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        eps, (t, s) = self.path.noise(x_0.shape, rng), self.times(x_0.shape[:1], rng)
        x_t = self.path.add_noise(x_0, eps, t)
        target = self.target(roles, x_t, t, s, cond)
        error = terms.squared(student.predict(x_t, t, cond, "mean_velocity", s), target, mask)
        error = error * terms.velocity_weight(self.path.sigma(t), student.kind)
        return {"total": error.mean()}

    @torch.no_grad()
    def target(self, roles: Roles, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
        """The mean velocity (b, ...) from t to s, both (b,), of the teacher's step and the rest."""
        r = torch.maximum(t - 1 / self.config.intervals, s)
        r = torch.where(r < terms.FLOOR, s, r)
        x_r = roles["teacher"].ode_step(x_t, t, r, cond, self.config.solver)
        # At r = s the rest is nothing, whatever the network says of it.
        rest = roles["student.target"].predict(x_r, r, cond, "mean_velocity", s)
        rest = torch.where(expand(r > s, x_t), expand((r - s).to(x_t.dtype), x_t) * rest, 0.0)
        return (x_t - x_r + rest) / expand((t - s).to(x_t.dtype), x_t)

    def times(self, shape: torch.Size, rng: Rng) -> tuple[Tensor, Tensor]:
        """(t, s), s < t: t uniform, s 0, or uniform below t, or a teacher's step below it."""
        config = self.config
        # Not near 0, where the quotient by t - s has no digits left.
        t = 1e-2 + (1 - 1e-2) * rng.uniform(shape)
        which, share = rng.uniform(shape), rng.uniform(shape)
        s = torch.where(which < config.whole, torch.zeros_like(t), 0.99 * share * t)
        near = (t - 1 / config.intervals).clamp(min=0)
        s = torch.where(which > 1 - config.instant, near, s)
        # 0 or away from it: between, the velocity of a prediction of x_0 divides by almost 0.
        return t, torch.where(s < terms.FLOOR, 0.0, s)

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)
