"""Trajectory consistency distillation: LCM whose student may end anywhere below, not at x_0 alone.

Zheng et al. 2024 (arXiv 2402.19159). The student's x_0 and eps at t give, by one DDIM step, the
point of its trajectory at a random end e below the teacher's step t -> s; it must be the point that
the target network gives from x_s (eq. 17, first order: the trajectory consistency function needs no
second time). The sampler re-noises only part of the way (strategic stochastic sampling, alg. 4):
each step ends at (1 - eta) of the next time and noise brings it back; on discrete VP it is
diffusers' stock TCDScheduler.
The guidance scale is drawn and told to the student as in `lcm`. Not faithful: no c_skip (the step
from e to e is the identity as it is); the distance is `lcm`'s Huber, where scripts that follow the
paper use squares or the same; on other paths than discrete VP the times are that path's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genkit import terms
from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond
from genkit.methods import lcm
from genkit.methods.base import Batch, Losses, Moment, Roles
from genkit.paths import expand
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(lcm.Method):
    family = "consistency"
    paper = "arXiv 2402.19159"
    needs = ("data",)

    @dataclass
    class Config(lcm.Method.Config):
        eta: float = 0.3
        """Share of each step's way that is noise in the delivered sampler (the paper's gamma):
        0 follows the trajectory, 1 re-noises x_0. The stock scheduler has 0.3."""
        steps: int = 4
        """Evaluations of the delivered student."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if not 0 <= config.eta <= 1:
            raise ValueError(f"eta is {config.eta}; give a share from 0 to 1")

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data = batch["data"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        eps = self.path.noise(x_0.shape, rng)
        t, s, index = self.step(x_0.shape[:1], rng)
        w = self.scale(x_0.shape[:1], rng)
        end = self.ends(index, rng)
        x_t = self.path.add_noise(x_0, eps, t)
        with torch.no_grad():
            x_s = self.teacher(roles, w).ode_step(x_t, t, s, cond, self.config.solver)
            there = self.moved(roles["student.target"], x_s, s, end, cond, w)
        here = self.moved(roles["student"], x_t, t, end, cond, w)
        return {"total": terms.huber(here, there, mask, self.config.huber).mean()}

    def ends(self, index: Tensor, rng: Rng) -> Tensor:
        """The ends (b,) of steps from grid[index]: any later time of the grid."""
        later = self.config.intervals - index
        chosen = index + 1 + torch.floor(rng.uniform(index.shape) * later).long()
        return self.grid.to(index.device)[chosen].float()

    def moved(
        self, network: Denoiser, x_t: Tensor, t: Tensor, end: Tensor, cond: Cond, w: Tensor
    ) -> Tensor:
        """The network's point at `end` (b,) of the trajectory through x_t (b, ...), which is x_t
        itself where t is the end."""
        moved = network.ode_step(x_t, t, end, self._told(cond, w, x_t), "euler")
        return torch.where(expand(t > end, x_t), moved, x_t)

    def sampler(self) -> Sampler:
        eta = self.config.eta
        return Sampler(steps=self.config.steps, stochastic=eta > 0, eta=eta if eta > 0 else 1.0)
