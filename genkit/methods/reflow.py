"""Reflow and one-step distillation: rectified flow made straight, then one Euler step of it.

InstaFlow, Liu et al. 2023 (arXiv 2309.06380, sec. 3), after Liu et al. 2022 (arXiv 2209.03003).
Stage "reflow" regresses the velocity on pairs (eps, x_0) of the teacher's ODE, so that the student
is a 2-rectified flow; stage "distill" makes new pairs from that flow and regresses one step.
Faithful to the README of the release (its training code is not public) but in two settings, both
of which are options: distances are the modality's own (the release: L2, then LPIPS), and
`renew=False` keeps the first teacher's pairs for the second stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genkit import terms
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Roles, Stage
from genkit.rng import Rng
from genkit.sampling import Sampler
from genkit.times import TIMES


class Method(base.Method):
    family = "trajectory"
    paper = "arXiv 2309.06380"
    needs = ("pairs",)

    @dataclass
    class Config(base.Distillation):
        lr: float = 1e-3
        """Learning rate at the start of each stage, decayed to 0."""
        flow_guidance: float = 1.0
        """The 2-rectified flow's own guidance when it makes pairs."""
        reflow_share: float = 0.4
        """Share of the steps spent on reflow; `regression` is what would be left without it."""
        renew: bool = True
        """Make new pairs from the 2-rectified flow for the last stage."""
        time: str = "uniform"
        """Distribution of t in the reflow stage."""
        steps: int = 1
        """1 ends with the one-step stage; more delivers the 2-rectified flow at that many steps."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if not 0 < config.reflow_share < 1:
            raise ValueError(
                f"reflow_share is {config.reflow_share}; give a share between 0 and 1, or use "
                "regression, which distils the teacher's pairs directly"
            )

    def stages(self) -> list[Stage]:
        config = self.config
        reflow = Stage("reflow", 1.0, guidance=self.guidance, new_data=True)
        if config.steps > 1:
            return [reflow]
        share = config.reflow_share
        start = {"teacher": "student"} if config.renew else {}
        distill = Stage(
            "distill", 1 - share, start, config.flow_guidance, True, new_data=config.renew
        )
        return [Stage("reflow", share, guidance=self.guidance, new_data=True), distill]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        pairs, student = batch["pairs"], roles["student"]
        if moment.stage.name == "distill":
            return {"total": self.one_step(student, pairs).mean()}
        eps, x_0, cond, mask = pairs["eps"], pairs["x_0"], pairs["cond"], pairs.get("mask")
        # Not 0: the velocity of a prediction of x_0 divides by sigma.
        t = TIMES[self.config.time](self.path, x_0.shape[:1], rng).clamp(min=1e-4)
        x_t = self.path.add_noise(x_0, eps, t)
        velocity = student.predict(x_t, t, cond, "velocity")
        loss = terms.flow_matching(velocity, x_0, eps, self.path, t, mask, student.kind)
        return {"total": loss.mean()}

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)
