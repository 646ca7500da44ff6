"""Regression on teacher pairs: the x_0 that the teacher's ODE makes of a noise, predicted at once.

Knowledge distillation, Luhman & Luhman 2021 (arXiv 2101.02388, sec. 3): noise, the teacher's sample
of it, and the distance of one evaluation to that. It is the control beside every method: it needs
the least, covers much, and blurs what a network cannot tell apart. It is also InstaFlow's last
stage without the reflow before it (`reflow` has both). Faithful in the loss, with any distance of
the modality and any solver of the teacher; the student starts as the teacher, as theirs does. With
several steps it learns from points of the teacher's paths, at the levels of its own grid, each as
far as its end: the start of causal students (CausVid, Yin et al. 2024, arXiv 2412.07772, sec. 4.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Roles, Stage
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(base.Method):
    family = "trajectory"
    paper = "arXiv 2101.02388"
    needs = ("pairs",)
    framewise = True

    @dataclass
    class Config(base.Distillation):
        steps: int = 1
        """Evaluations of the delivered student, x_0 re-noised between them; more than one needs
        pair_steps that it divides."""

    def stages(self) -> list[Stage]:
        points = self.config.steps if self.config.steps > 1 else 0
        return [Stage("distill", guidance=self.guidance, new_data=True, points=points)]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        student, pairs = roles["student"], batch["pairs"]
        if self.config.steps == 1:
            return {"total": self.one_step(student, pairs).mean()}
        rows, path = torch.arange(len(pairs["x_0"])), pairs["path"]
        which = rng.integers(0, self.config.steps, (len(rows),)).cpu()
        x_t, t = (path[name][rows, which] for name in ("x_t", "t"))
        x_0 = student.predict(x_t, t, pairs["cond"], "x_0")
        return {"total": self.distance(x_0, pairs["x_0"], pairs.get("mask")).mean()}

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps, stochastic=self.config.steps > 1)
