"""LADD: the student is judged by heads on the frozen teacher's features, and by nothing else.

Sauer et al. 2024 (arXiv 2403.12015), after ADD (arXiv 2311.17042). Data are noised to a level of
the student's own sampler and denoised by it at once; its x_0 and the data are noised again, to a
random level, and heads on the teacher's blocks tell them apart (hinge loss, R1 on what the heads
read). The paper's data are the teacher's own samples, guided: --teacher-data. Its first steps
train on the lower noise levels alone, from which there is something to tell apart.
Faithful in that, in the levels' logit-normal distribution, and in having no other loss; not in the
heads, which are small MLPs that average over tokens and are not told level or condition; in the
R1's weight; nor in the shares of the sampler's levels, which are even (theirs favour pure noise).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genkit import terms, times
from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.networks.head import blocks
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(base.Method):
    family = "distribution"
    paper = "arXiv 2403.12015"
    needs = ("data",)

    @dataclass
    class Config(base.Distillation):
        lr: float = 1e-4
        head_lr: float = 1e-3
        """Learning rate of the heads."""
        guidance: float | None = None
        """The guidance of the teacher's samples, where they are the data; by default the teacher's
        own. Its features are always without."""
        time_mean: float = 1.0
        """Mean of logit(u) of the levels at which samples are judged; more is noisier, and judges
        what is large rather than texture."""
        time_std: float = 1.0
        """Its deviation."""
        penalty: float = 1e-2
        """Weight of R1 in the heads' loss."""
        settle: float = 0.1
        """Share of the run that trains on the lower half of the sampler's levels alone."""
        features: tuple[str, ...] = ()
        """Submodules of the teacher whose outputs the heads read; empty: all its blocks."""
        steps: int = 4
        """Evaluations of the delivered student, x_0 re-noised between them."""

    def stages(self) -> list[Stage]:
        return [Stage("train", guidance=self.guidance)]

    def nets(self) -> dict[str, Role]:
        head = Role(build=self._head, lr=self.config.head_lr, betas=(0.5, 0.999), decay=True)
        return {"student": self.student(), "head": head}

    def _head(self, given: Mapping[str, nn.Module]) -> nn.Module:
        return self.head_on(given["teacher"], self.config.features or blocks(given["teacher"]))

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        return [("head",), ("student",)]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data = batch["data"]
        x_0, cond = data["x_0"], data["cond"]
        if "student" in roles.turn:
            made = self._denoised(roles["student"], x_0, cond, moment, rng)
            logits = roles["head"](self._features(roles, made, cond, rng))
            return {"total": terms.hinge_student(logits).mean()}
        with torch.no_grad():
            made = self._denoised(roles["student"], x_0, cond, moment, rng)
            fake = self._features(roles, made, cond, rng)
            real = self._features(roles, x_0, cond, rng)
        real = {name: each.requires_grad_(True) for name, each in real.items()}
        real_logits = roles["head"](real)
        hinge = terms.hinge_head(real_logits, roles["head"](fake)).mean()
        penalty = terms.gradient_penalty(real_logits, real).mean()
        total = hinge + self.config.penalty * penalty
        return {"total": total, "hinge": hinge, "penalty": penalty}

    def _denoised(
        self, student: Denoiser, x_0: Tensor, cond: Cond, moment: Moment, rng: Rng
    ) -> Tensor:
        """The student's x_0 of the data noised to random levels of its own sampler (sec. 3.2)."""
        grid = self.sampler().grid(self.path)
        settling = moment.step < self.config.settle * moment.steps
        index = rng.integers(len(grid) // 2 if settling else 0, len(grid), x_0.shape[:1])
        t = grid.to(x_0.device)[index].float()
        x_t = self.path.add_noise(x_0, self.path.noise(x_0.shape, rng), t)
        return student.predict(x_t, t, cond, "x_0")

    def _features(self, roles: Roles, x_0: Tensor, cond: Cond, rng: Rng) -> dict[str, Tensor]:
        """What the teacher's blocks, without guidance, make of x_0 noised to a random level."""
        judge, config, names = roles["teacher"].unguided, self.config, roles["head"].names
        t = times.logit_normal(self.path, x_0.shape[:1], rng, config.time_mean, config.time_std)
        x_t = self.path.add_noise(x_0, self.path.noise(x_0.shape, rng), t)
        return judge.trace(x_t, t, cond, judge.kind, names)[1]

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps, stochastic=self.config.steps > 1)
