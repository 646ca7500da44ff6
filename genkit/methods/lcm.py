"""Latent consistency distillation: consistency over a skipped stretch of a guided teacher's ODE.

Luo et al. 2023 (arXiv 2310.04378, alg. 1): of `intervals` DDIM times each is made consistent with
the next by one step of the guided teacher (20 of Stable Diffusion's 1,000), an EMA copy being the
target. The guidance scale w is drawn for each sample and told to the student, so that one student
serves a range of scales at one evaluation each; the input for it is zero-initialised (theirs begins
at random). Where both ends of the range are one number, or the data has no conditions, the student
keeps its network and learns that scale alone.
Faithful on discrete VP, where the grid is DDIM's 999, 979, ..., 19 and then 0; on other paths it is
the path's own. f is the predicted x_0, and x itself at the end
of the grid: the released c_skip and c_out differ from 0 and 1 by less than 1e-5 elsewhere. Scales
are genkit's, in which 1 is off: their 2 to 14 is 3 to 15 here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genkit import terms
from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond, told
from genkit.methods import base
from genkit.methods.base import Batch, Ema, Losses, Moment, Role, Roles, Stage, warmed
from genkit.networks.more_inputs import with_guidance
from genkit.paths import expand
from genkit.rng import Rng
from genkit.sampling import Sampler


@dataclass
class Interval(base.Distillation):
    """Settings of a method that makes the times of a grid consistent, each with the next."""

    lr: float = 1e-3
    """Student's learning rate at the start, decayed to 0 (in the papers, for Stable Diffusion: 1e-6
    of LCM, 8e-6 of SLAM)."""
    target_ema: float = 0.95
    """Rate of the target network's average."""
    intervals: int = 50
    """Times of the grid, each made consistent with the next."""
    solver: Literal["euler", "heun"] = "euler"
    """The teacher's step between them; Euler's is DDIM."""
    huber: float = 1e-3
    """Where the distance of two elements turns from squared to plain."""
    steps: int = 1
    """Evaluations of the delivered student, x_0 re-noised between them."""


class Method(base.Method):
    family = "consistency"
    paper = "arXiv 2310.04378"
    needs = ("data",)
    any_steps = True

    @dataclass
    class Config(Interval):
        guidance: float | None = None
        """The scale the student is sampled with by default; by default the teacher's own."""
        guidance_low: float = 1.0
        """Least scale it learns."""
        guidance_high: float | None = None
        """Largest scale it learns; by default so that its own is in the middle."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.scales = self._range() if self.uncond else (1.0, 1.0)
        ends = self.path.time(torch.zeros(1, dtype=torch.float64))
        self.grid = torch.cat([self.path.grid(config.intervals), ends])

    def _range(self) -> tuple[float, float]:
        """The scales the teacher is guided with."""
        low, high = self.config.guidance_low, self.config.guidance_high
        return base.scale_range(low, high, self.guidance)

    @property
    def embedded_guidance(self) -> float | None:
        return None if self.scales[0] == self.scales[1] else self.guidance

    def stages(self) -> list[Stage]:
        return [Stage("train", guidance=self.guidance)]

    def nets(self) -> dict[str, Role]:
        target = {"target": Ema(warmed(self.config.target_ema))}
        change = None if self.embedded_guidance is None else with_guidance
        return {"student": self.student(target, change=change)}

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data = batch["data"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        eps = self.path.noise(x_0.shape, rng)
        t, s, _ = self.step(x_0.shape[:1], rng)
        w = self.scale(x_0.shape[:1], rng)
        x_t = self.path.add_noise(x_0, eps, t)
        with torch.no_grad():
            x_s = self.teacher(roles, w).ode_step(x_t, t, s, cond, self.config.solver)
            there = self._ended(self.there(roles["student.target"], x_s, s, cond, w), x_s, s)
        here = self.here(roles["student"], x_t, t, x_s, s, cond, w, rng)
        return {"total": terms.huber(here, there, mask, self.config.huber).mean()}

    def step(self, shape: torch.Size, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """(t, s, index of t), each (b,): random neighbours of the grid."""
        index = rng.integers(0, self.config.intervals, shape)
        t, s = (self.grid.to(index.device)[each].float() for each in (index, index + 1))
        return t, s, index

    def scale(self, shape: torch.Size, rng: Rng) -> Tensor:
        """The guidance scale of each sample (b,)."""
        low, high = self.scales
        return low + (high - low) * rng.uniform(shape)

    def teacher(self, roles: Roles, w: Tensor) -> Denoiser:
        """The teacher guided with w (b,), which is its stage's own where there is one scale."""
        one = self.scales[0] == self.scales[1]
        return roles["teacher"] if one else self.guided(roles["teacher"], w)

    def here(
        self,
        student: Denoiser,
        x_t: Tensor,
        t: Tensor,
        x_s: Tensor,
        s: Tensor,
        cond: Cond,
        w: Tensor,
        rng: Rng,
    ) -> Tensor:
        """The student's x_0 (b, ...) at the noisier end of the teacher's step from x_t to x_s."""
        return student.predict(x_t, t, self._told(cond, w, x_t), "x_0")

    def there(self, target: Denoiser, x_s: Tensor, s: Tensor, cond: Cond, w: Tensor) -> Tensor:
        """What it is to be: the target network's x_0 at the other end."""
        return target.predict(x_s, s, self._told(cond, w, x_s), "x_0")

    def _told(self, cond: Cond, w: Tensor | float, x: Tensor) -> Cond:
        return cond if self.embedded_guidance is None else told(cond, w, x)

    def _ended(self, x_0: Tensor, x_s: Tensor, s: Tensor) -> Tensor:
        """f(x, t_min) = x, whatever the network."""
        return torch.where(expand(s > self.path.t_min, x_s), x_0, x_s)

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps, stochastic=True)
