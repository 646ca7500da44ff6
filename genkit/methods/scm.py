"""sCM: the consistency function in continuous time, dx_0/dt = 0 along the teacher's ODE.

Lu & Song 2024 (arXiv 2410.11081, alg. 1, distillation). No grid and no target network: the student
is pulled along its own derivative in time, taken on TrigFlow, with the tangent's unstable part
warmed up, the tangent normalised, and a learned weight for each noise level. A student on any path
is read as a velocity on TrigFlow (genkit.denoisers.repathed.Repathed); its network is not changed.
Faithful but for: the tangent is normalised by its root mean square and the loss is a mean, as in
NVIDIA's FastGen, where the paper takes norms and divides by the size; the warm-up is a share of
the run (the paper's 10,000 steps are longer than most of ours); AdamW for RAdam; and one call gives
value and derivative, where the paper makes two. Training without a teacher (sCT) is left out. The
derivative is exact (`func`), or a central difference for networks whose attention has no forward
derivative. Run it in float32: in bfloat16 the derivative in time is noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genkit import terms, times
from genkit.guidance import Cond
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.networks.head import LogWeight
from genkit.paths import TrigFlow
from genkit.rng import Rng
from genkit.sampling import Sampler


@dataclass
class Tangent:
    """Settings of the consistency function's derivative."""

    time_mean: float = -1.0
    """Mean of log(sigma / alpha) of the consistency term, drawn from a normal distribution."""
    time_std: float = 1.4
    """Its deviation."""
    tangent_warmup: float = 0.25
    """Share of the run over which the tangent's unstable part is let in."""
    tangent_floor: float = 0.1
    """What is added to the tangent's size where it is divided by it."""
    derivative: Literal["func", "difference", "kernel"] = "func"
    """How the student's derivative is taken: exactly on torch's attention, by central differences,
    or exactly on the network's own attention."""


class Method(base.Method):
    family = "consistency"
    paper = "arXiv 2410.11081"
    needs = ("data",)
    any_steps = True

    @dataclass
    class Config(Tangent, base.Distillation):
        lr: float = 5e-4
        sigma_data: float = 0.5
        """Deviation of the data, TrigFlow's scale of noise."""
        steps: int = 1
        """Evaluations of the delivered student, x_0 re-noised between them."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.trig = TrigFlow(config.sigma_data)

    def stages(self) -> list[Stage]:
        return [Stage("train", guidance=self.guidance)]

    def nets(self) -> dict[str, Role]:
        weight = Role(build=_weight, lr=1e-2, decay=True, warmup=self.config.warmup)
        return {"student": self.student(betas=(0.9, 0.99)), "weight": weight}

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        return [("student", "weight")]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data, student = batch["data"], roles["student"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        eps, t = self.path.noise(x_0.shape, rng), self._times(x_0.shape[:1], rng)
        x_t = self.trig.add_noise(x_0, eps, t)
        warm = self.config.tangent_warmup * moment.steps
        r = min(1.0, moment.step / warm) if warm else 1.0
        velocity, tangent = self.tangent(roles, x_t, t, cond, r)
        tangent = terms.normalised(tangent, mask, self.config.tangent_floor)
        # F is the velocity in units of sigma_data; the prior weight is 1 / sigma.
        prior = -torch.log(self.config.sigma_data * torch.tan(t.double())).float()
        prior = prior + torch.log(terms.velocity_weight(torch.sin(t), student.kind))
        log_weight = roles["weight"](t)
        loss = terms.toward(velocity / self.config.sigma_data, tangent, log_weight + prior, mask)
        return {"total": (loss + prior).mean(), "tangent": terms.mean(tangent**2, mask).mean()}

    def tangent(
        self, roles: Roles, x_t: Tensor, t: Tensor, cond: Cond, r: float
    ) -> tuple[Tensor, Tensor]:
        """(the student's velocity on TrigFlow, with gradient; the tangent, without), (b, ...)."""
        student, teacher = roles["student"], roles["teacher"]
        return terms.trig_tangent(
            student, teacher, self.trig, x_t, t, cond, r, self.config.derivative
        )

    def _times(self, shape: torch.Size, rng: Rng) -> Tensor:
        config = self.config
        return times.trig_log_normal(
            self.trig, self.path, shape, rng, config.time_mean, config.time_std
        )

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps, stochastic=self.config.steps > 1)


def _weight(given: Mapping[str, nn.Module]) -> nn.Module:
    return LogWeight()
