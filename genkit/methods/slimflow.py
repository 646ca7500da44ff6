"""SlimFlow: annealing reflow, then flow-guided distillation, for a student of another size.

Zhu et al. 2024 (arXiv 2407.12718). A network that begins fresh, and so cannot begin as the teacher,
first learns the easy flow from other noise than its pair's, beta = 1, which turns into reflow as
beta falls to 0: eps' = sqrt(1 - beta^2) eps + beta (fresh noise). The small flow then becomes the
teacher, makes new pairs, and one step of the student is held to them and, on fresh noise and with
no pairs, to two steps: its own to a point between, the flow's from there. Faithful to the release
in the stages, the three schedules, the guide (its "teacher_loss_new") and the mirror; distances are
the modality's own, and any path's straight lines in x_0 and eps serve.
The size is --student-size (width=128 depth=3, say); without it the student begins as its teacher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genkit import terms
from genkit.denoisers.base import Denoiser
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Roles, Stage
from genkit.paths import expand
from genkit.rng import Rng
from genkit.sampling import Sampler
from genkit.times import TIMES


class Method(base.Method):
    family = "trajectory"
    paper = "arXiv 2407.12718"
    needs = ("pairs",)

    @dataclass
    class Config(base.Distillation):
        lr: float = 1e-3
        """Learning rate at the start of each stage, decayed to 0."""
        ema: float = 0.999
        """Rate of the average that is sampled and delivered (the paper's .999999 is for a million
        steps)."""
        flow_guidance: float = 1.0
        """The student flow's own guidance when it makes pairs."""
        reflow_share: float = 0.5
        """Share of the steps spent on annealing reflow."""
        schedule: Literal["linear", "exp", "cosine"] = "linear"
        """How beta falls from 1."""
        anneal: float = 0.4
        """Share of the reflow's steps in which beta falls to 0 (exp: to 1 / e)."""
        guide: float = 1.0
        """Weight of the two-step guide beside the distance to the pairs."""
        mirror: bool = False
        """Mirror noise and sample of half of the pairs along their last axis, for data that is as
        likely either way round."""
        time: str = "uniform"
        """Distribution of t in the reflow stage."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        for name in ("reflow_share", "anneal"):
            if not 0 < getattr(config, name) < 1:
                raise ValueError(f"{name} is {getattr(config, name)}; give a share between 0 and 1")
        if config.schedule not in ("linear", "exp", "cosine"):
            raise ValueError(f"schedule is {config.schedule!r}; choose linear, exp or cosine")
        if self.path.dimensions is not None:
            raise ValueError(
                "annealing reflow mixes noises, of which only Gaussian ones stay what they are; "
                "take a teacher with Gaussian noise, or reflow"
            )

    def stages(self) -> list[Stage]:
        share, own = self.config.reflow_share, self.config.flow_guidance
        start = {"teacher": "student"}
        return [
            Stage("reflow", share, guidance=self.guidance, new_data=True),
            Stage("distill", 1 - share, start, own, fresh_optimizer=True, new_data=True),
        ]

    def beta(self, moment: Moment) -> float:
        """The share of fresh noise at this step, from 1 (sec. 3.1)."""
        progress = moment.step / (self.config.anneal * moment.steps)
        if self.config.schedule == "exp":
            return math.exp(-progress)
        linear = 1 - min(1.0, progress)
        return linear if self.config.schedule == "linear" else math.sin(math.pi / 2 * linear)

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        pairs = batch["pairs"]
        if self.config.mirror:
            pairs = self.mirrored(pairs, rng.fork("mirror"))
        if moment.stage.name == "reflow":
            return {"total": self.reflow(roles["student"], pairs, self.beta(moment), rng).mean()}
        distance = self.one_step(roles["student"], pairs).mean()
        guide = self.guide(roles, pairs, rng).mean()
        return {"total": distance + self.config.guide * guide, "pairs": distance, "guide": guide}

    def mirrored(self, pairs: Mapping[str, Any], rng: Rng) -> dict[str, Any]:
        """The pairs with noise and sample of about half of the rows mirrored, both together."""
        chosen = expand(rng.uniform(pairs["eps"].shape[:1]) < 0.5, pairs["eps"])
        both = ("eps", "x_0")
        turned = {name: torch.where(chosen, pairs[name].flip(-1), pairs[name]) for name in both}
        return {**pairs, **turned}

    def annealed(self, eps: Tensor, beta: float, rng: Rng) -> Tensor:
        """sqrt(1 - beta^2) eps + beta (fresh noise), which is unit Gaussian at every beta."""
        return math.sqrt(1 - beta**2) * eps + beta * self.path.noise(eps.shape, rng).to(eps.dtype)

    def reflow(self, student: Denoiser, pairs: Mapping[str, Any], beta: float, rng: Rng) -> Tensor:
        """Flow matching of the pairs with annealed noise, per sample (b,)."""
        x_0, eps = pairs["x_0"], self.annealed(pairs["eps"], beta, rng)
        # Not 0: the velocity of a prediction of x_0 divides by sigma.
        t = TIMES[self.config.time](self.path, x_0.shape[:1], rng).clamp(min=1e-4)
        x_t = self.path.add_noise(x_0, eps, t)
        velocity = student.predict(x_t, t, pairs["cond"], "velocity")
        mask = pairs.get("mask")
        return terms.flow_matching(velocity, x_0, eps, self.path, t, mask, student.kind)

    def guide(self, roles: Roles, pairs: Mapping[str, Any], rng: Rng) -> Tensor:
        """Distance (b,) of the student's x_0 of fresh noise to what the flow makes of a point on
        the student's own straight line, which gives no gradient (sec. 3.2)."""
        cond, shape = pairs["cond"], pairs["x_0"].shape
        eps = self.path.noise(shape, rng).to(pairs["x_0"].dtype)
        start = torch.full(shape[:1], self.path.t_max, device=eps.device)
        x_0 = roles["student"].predict(self.path.start(eps), start, cond, "x_0")
        t = self.path.time(0.2 + 0.6 * rng.uniform(shape[:1]))
        with torch.no_grad():
            between = self.path.add_noise(x_0, eps, t)
            target = roles["teacher"].predict(between, t, cond, "x_0")
        return self.distance(x_0, target, pairs.get("mask"))

    def sampler(self) -> Sampler:
        return Sampler(steps=1)
