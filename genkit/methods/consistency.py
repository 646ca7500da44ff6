"""Consistency distillation: f(x_t, t) = f(x_s, s) along the teacher's ODE, f = x_0 at t_min.

Song et al. 2023 (arXiv 2303.01469, alg. 2): neighbouring times of a grid, one Euler or Heun step of
the teacher between them, an EMA copy as the target. The grid is refined as in their alg. 3
(appendix C), N(k) from `first_intervals` to `last_intervals`. Not faithful: the grid is uniform on
the path's own clock (on EDM that is theirs); f has no skip connection: at sigma = 0 the target is x
itself, whatever the network; the distance defaults to pseudo-Huber (iCT, arXiv 2310.14189) instead
of LPIPS. Frames of a sequence that have their own noise levels are moved each on its own ODE, given
the true frames before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genkit import terms
from genkit.methods import base
from genkit.methods.base import Batch, Ema, Losses, Moment, Role, Roles, Stage, warmed
from genkit.paths import expand
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(base.Method):
    family = "consistency"
    paper = "arXiv 2303.01469"
    needs = ("data",)
    framewise = True
    presets = {
        "digits": {"max_steps": 3000, "batch_size": 256, "mixed_precision": "bf16"},
        # Untuned: no run of any length has been made.
        "world": {
            "max_steps": 2000,
            "batch_size": 8,
            "muon": r"blocks\.",
            "mixed_precision": "bf16",
            "sample_every": 500,
            "measure_every": 0,
            "evaluate_n": 64,
            "evaluate_seeds": (0,),
            "evaluate_steps": (1, 2, 4, 16),
        },
        "emoji-scenes": {
            "guidance": 1.5,
            "max_steps": 2000,
            "batch_size": 64,
            "muon": r"blocks?\.",
            "mixed_precision": "bf16",
            "measure_every": 0,
            "evaluate_n": 500,
            "evaluate_seeds": (0,),
            "evaluate_precision": "bf16",
        },
    }

    @dataclass
    class Config:
        lr: float = 1e-3
        """Learning rate at the start, decayed to 0."""
        warmup: int = 50
        """Steps over which the learning rate rises."""
        ema: float = 0.999
        """Rate of the average that is sampled and delivered."""
        target_ema: float = 0.95
        """Rate of the target network's average."""
        guidance: float | None = None
        """The teacher's guidance, baked into the student; by default the teacher's own."""
        solver: Literal["euler", "heun"] = "heun"
        """The teacher's step between neighbouring times."""
        first_intervals: int = 8
        """Intervals of the time grid at the beginning."""
        last_intervals: int = 64
        """Intervals of the time grid at the end."""
        steps: int = 1
        """Evaluations of the delivered student, x_0 re-noised between them."""

    def stages(self) -> list[Stage]:
        return [Stage("train", guidance=self.guidance)]

    def nets(self) -> dict[str, Role]:
        config = self.config
        averages = {
            "export": Ema(warmed(config.ema)),
            "target": Ema(warmed(config.target_ema)),
        }
        student = Role("teacher", lr=config.lr, warmup=config.warmup, decay=True, ema=averages)
        return {"student": student}

    def intervals(self, moment: Moment) -> int:
        """N(k), doubling at equal shares of the stage (iCT, arXiv 2310.14189, eq. 10)."""
        first, last = self.config.first_intervals, self.config.last_intervals
        doublings = math.floor(math.log2(last / first)) + 1
        share = moment.step / max(moment.steps, 1)
        return min(first * 2 ** math.floor(share * doublings), last)

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data = batch["data"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        eps = self.path.noise(x_0.shape, rng)
        n = self.intervals(moment)
        cond = roles["student"].given(x_0, cond, eps)
        index = rng.integers(1, n + 1, x_0.shape[: self.levels])
        t, s = self._time(index, n), self._time(index - 1, n)
        x_t = self.path.add_noise(x_0, eps, t)
        with torch.no_grad():
            x_s = roles["teacher"].ode_step(x_t, t, s, cond, self.config.solver)
            there = roles["student.target"].predict(x_s, s, cond, "x_0")
            there = torch.where(expand(self.path.sigma(s) > 0, x_s), there, x_s)
        here = roles["student"].predict(x_t, t, cond, "x_0")
        return {"total": terms.consistency(here, there, self.distance, mask).mean()}

    def _time(self, index: Tensor, n: int) -> Tensor:
        return self.path.time(index.to(torch.float64) / n).float()

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps, stochastic=self.config.steps > 1)
