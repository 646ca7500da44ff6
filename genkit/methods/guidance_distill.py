"""Guidance distillation: the student predicts at once what guidance makes of two evaluations.

Meng et al. 2022 (arXiv 2210.03142, stage one, sec. 3.1): the student, asked with the condition
alone, is regressed on the guided teacher uncond + w (cond - uncond) at every noise level, so that
it takes the teacher's own steps at half the cost. Where the condition is dropped, guidance leaves
the teacher as it is, and the student learns that too: a negative prompt, or more guidance, still
works on it, at the full cost. w is one number, folded in, or, with `guidance_low` and
`guidance_high`, drawn from that range for each sample and told to the student as an input, which is
the paper's. Told w = 1 such a student is the plain teacher, and so can be guided from a negative
prompt like it. Their second stage, fewer steps, is `progressive`, with a student of one w as its
teacher.
Not faithful: errors are of what the network predicts, unweighted (theirs of x_0, weighed by the
signal-to-noise ratio); dropped conditions, which theirs has none of; w enters through 128 sines and
cosines and zero-initialised weights (theirs: Fourier features, as the time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from genkit import guidance, terms
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.networks.more_inputs import with_guidance
from genkit.rng import Rng
from genkit.sampling import Sampler
from genkit.times import TIMES

UNNAMED = 2.0  # the scale where neither a person nor a teacher has named one
STEPS = 50  # likewise


class Method(base.Method):
    family = "guidance"
    paper = "arXiv 2210.03142"
    needs = ("data",)

    @dataclass
    class Config(base.Sampled, base.Distillation):
        lr: float = 3e-4
        guidance: float | None = None
        """The scale that is folded in; by default the teacher's own."""
        guidance_low: float | None = None
        """Least of the scales that the student learns to take as an input; by default one scale is
        folded in, and its network is the teacher's own."""
        guidance_high: float | None = None
        """Largest of them; by default so that its own is in the middle."""
        drop: float = 0.1
        """Share of samples without their condition, for negative prompts and guidance on top."""
        time: str = "uniform"
        """Distribution of t: a name of genkit.times."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if config.guidance == 1:
            raise ValueError("guidance 1 is none, and folds nothing in; give another, such as 2")
        if not self.uncond:
            raise ValueError("this data has no conditions, so there is no guidance to fold in")
        self.scales = None
        if config.guidance_low is not None or config.guidance_high is not None:
            low = 1.0 if config.guidance_low is None else config.guidance_low
            self.scales = base.scale_range(low, config.guidance_high, self.guidance)

    @property
    def guidance(self) -> float:
        return UNNAMED if self.config.guidance is None else float(self.config.guidance)

    @property
    def embedded_guidance(self) -> float | None:
        return None if self.scales is None else self.guidance

    def stages(self) -> list[Stage]:
        return [Stage("train", guidance=self.guidance)]

    def nets(self) -> dict[str, Role]:
        change = None if self.scales is None else with_guidance
        return {"student": self.student(change=change)}

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data, student = batch["data"], roles["student"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        if self.config.drop:
            assert self.uncond is not None, "refused at the beginning"
            cond = guidance.drop(cond, self.uncond, self.config.drop, rng)
        eps = self.path.noise(x_0.shape, rng)
        t = TIMES[self.config.time](self.path, x_0.shape[:1], rng)
        x_t = self.path.add_noise(x_0, eps, t)
        teacher, asked = roles["teacher"], cond
        if self.scales is not None:
            w = self.scales[0] + (self.scales[1] - self.scales[0]) * rng.uniform(t.shape)
            teacher, asked = self.guided(teacher, w), guidance.told(cond, w, x_t)
        with torch.no_grad():
            guided = teacher.predict(x_t, t, cond, student.kind)
        prediction = student.predict(x_t, t, asked, student.kind)
        return {"total": terms.squared(prediction, guided, mask).mean()}

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps or STEPS, times=self.config.times or None)
