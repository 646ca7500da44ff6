"""rCM: continuous-time consistency, regularised by matching the student's own samples (sCM + DMD).

Zheng et al. 2025 (arXiv 2510.08431). sCM pulls the student along the teacher's trajectories, which
covers all modes and smears; DMD2's matching of the student's samples, made by its own sampler, is
added to it and sharpens. Both terms stand on one update; a fake score follows the student between
updates. While the tangent is warmed up the student learns by consistency alone.
The terms are those of `scm` and `dmd2`, so a student on any path serves, read as a velocity on
TrigFlow; the sampler re-noises. Faithful in the terms, their order, no learned weight of noise
levels and no GAN. Not faithful: terms are means over elements, where theirs are sums, so that their
100 to 1 at d elements is 100 / (2 sqrt(d)) to 1 here; the warm-up multiplies the whole unstable
part of the tangent, as in sCM (theirs leaves the derivative out of it); matching is at u of the
path's own clock; grids are the sampler's (theirs has fixed middle times); AdamW without decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genkit import terms, times
from genkit.guidance import Cond
from genkit.methods import dmd2, scm
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.paths import TrigFlow
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(dmd2.Method):
    family = "joint"
    paper = "arXiv 2510.08431"
    needs = ("data",)
    framewise = False

    @dataclass
    class Config(scm.Tangent, dmd2.Matching):
        lr: float = 3e-4
        consistency: float = 1.0
        """Weight of the consistency term; 0 is matching alone, after the warm-up."""
        matching: float = 1.0
        """Weight of the matching; 0 is consistency alone, and trains no fake score."""
        time_mean: float = 0.7
        time_std: float = 1.6
        tangent_warmup: float = 0.25
        """Share of the run over which the tangent's unstable part is let in, without matching."""
        fake_turns: int = 4
        """Turns of the fake score and head before each of the student's, once there is matching."""
        shift: float = 5.0
        normaliser: Literal["sample", "batch"] = "batch"
        """Over what the matching's gradient is normalised (the paper's: each sample)."""
        adversarial: float = 0.0
        """Weight of a GAN term beside the matching, which the paper has none of; 0 leaves out its
        head."""
        steps: int = 1
        """Evaluations of the delivered student, x_0 re-noised between them."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if config.consistency <= 0 and config.matching <= 0:
            raise ValueError("consistency and matching are both 0, so there is nothing to learn")
        self.trig = TrigFlow()

    def stages(self) -> list[Stage]:
        return [Stage("train", guidance=self.guidance)]

    def nets(self) -> dict[str, Role]:
        roles = super().nets()
        return roles if self.config.matching else {"student": roles["student"]}

    def warm(self, moment: Moment) -> float:
        """How much of the tangent is let in, from 0 to 1, at which matching begins."""
        steps = self.config.tangent_warmup * moment.steps if self.config.consistency else 0
        return min(1.0, moment.step / steps) if steps else 1.0

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        if not self.config.matching or self.warm(moment) < 1:
            return [("student",)]
        return super().turns(moment)

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        if "student" not in roles.turn:
            return self._critics(roles, batch, rng)
        r, total, losses = self.warm(moment), [], {}
        if self.config.consistency:
            losses["consistency"] = self._consistency(roles, batch, r, rng)
            total.append(self.config.consistency * losses["consistency"])
        if self.config.matching and r >= 1:
            matching = self._student(roles, batch, rng)
            total.append(self.config.matching * matching.pop("total"))
            losses |= matching
        return {"total": sum(total[1:], total[0])} | losses

    def _consistency(self, roles: Roles, batch: Batch, r: float, rng: Rng) -> Tensor:
        """sCM's term without a learned weight (the tangent's own is cos t), a scalar."""
        config, data = self.config, batch["data"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        shape, mean, std = x_0.shape[:1], config.time_mean, config.time_std
        t = times.trig_log_normal(self.trig, self.path, shape, rng, mean, std)
        x_t = self.trig.add_noise(x_0, self.path.noise(x_0.shape, rng), t)
        velocity, tangent = self.tangent(roles, x_t, t, cond, r)
        tangent = terms.normalised(tangent, mask, config.tangent_floor)
        weight = terms.velocity_weight(torch.sin(t), roles["student"].kind)
        return (weight * terms.toward(velocity, tangent, torch.zeros_like(t), mask)).mean()

    def tangent(
        self, roles: Roles, x_t: Tensor, t: Tensor, cond: Cond, r: float
    ) -> tuple[Tensor, Tensor]:
        """(the student's velocity on TrigFlow, with gradient; the tangent, without), (b, ...)."""
        student, teacher = roles["student"], roles["teacher"]
        return terms.trig_tangent(
            student, teacher, self.trig, x_t, t, cond, r, self.config.derivative
        )

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps, stochastic=self.config.steps > 1)
