"""DMM: several teachers merged into one student, which is asked for the style of any of them.

Song et al. 2025 (arXiv 2504.12364). Each row of a batch is given a teacher; the student, told which
by a style vector beside the time, is regressed on that teacher's prediction at every noise level,
and on the outputs of its blocks. It is no distillation of steps: the student takes as many as its
teachers, and guidance as they do (none is baked in; give guidance_scale to its pipeline). With one
teacher it is plain knowledge distillation.
Faithful to the released training code but for: teachers are drawn for each row (there each process
has one); features are of one list of blocks, the network's longest, unless `features` names others
(there down, middle and up). The paper's multi-class discriminator is in no released code, and its
form here is ours (`adversarial`, by default off): a head on the first teacher's blocks has a logit
for each teacher, which is to be high for that teacher's x_0 and low for the student's in its style
and for other teachers', all noised again. Not in: the regulariser for merging on. All teachers read
the same text encoder's embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genkit import guidance, terms
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.networks.head import blocks
from genkit.networks.styled import styled
from genkit.rng import Rng
from genkit.sampling import Sampler
from genkit.times import TIMES

STEPS = 50  # where no teacher has named any


class Method(base.Method):
    family = "merging"
    paper = "arXiv 2504.12364"
    needs = ("data",)
    merges = True

    @dataclass
    class Config(base.Sampled):
        lr: float = 3e-4
        weight_decay: float = 1e-2
        drop: float = 0.1
        """Share of samples without their condition, so that guidance works on the student."""
        feature: float = 2e-3
        """Weight of the distance of the blocks' outputs; 0 leaves it out."""
        features: tuple[str, ...] = ()
        """Submodules of a teacher whose outputs those are; empty: its longest list of blocks."""
        adversarial: float = 0.0
        """Weight of the discriminator's term in the student's loss; 0 leaves it out."""
        head_lr: float = 1e-3
        """Learning rate of the discriminator's head."""
        time: str = "uniform"
        """Distribution of t: a name of genkit.times."""

    def stages(self) -> list[Stage]:
        return [Stage("merge")]

    def nets(self) -> dict[str, Role]:
        def change(network: nn.Module) -> nn.Module:
            return styled(network, self.teachers)

        student = self.student(change=change)
        if not self.config.adversarial:
            return {"student": student}
        head = Role(build=self._head, lr=self.config.head_lr, betas=(0.5, 0.999), decay=True)
        return {"student": student, "head": head}

    def _head(self, given: Mapping[str, nn.Module]) -> nn.Module:
        teacher = given["teacher"]
        return self.head_on(teacher, self.config.features or blocks(teacher), self.teachers)

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        return [("head",), ("student",)] if self.config.adversarial else [("student",)]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data, student = batch["data"], roles["student"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        if self.config.drop and self.uncond:
            cond = guidance.drop(cond, self.uncond, self.config.drop, rng)
        eps = self.path.noise(x_0.shape, rng)
        t = TIMES[self.config.time](self.path, x_0.shape[:1], rng)
        x_t = self.path.add_noise(x_0, eps, t)
        style = rng.integers(0, self.teachers, x_0.shape[:1])
        names = self._features(roles["teacher"])
        told = {**cond, "style": style}
        if "student" not in roles.turn:
            with torch.no_grad():
                made = student.predict(x_t, t, told, "x_0")
                target, _ = self._taught(roles, x_t, t, cond, style, ())
                real = self.path.convert(target, x_t, t, student.kind, "x_0")
            return self._telling(roles, real, made, cond, style, rng)
        with torch.no_grad():
            target, wanted = self._taught(roles, x_t, t, cond, style, names)
        inside = [name.replace("network.", "network.networks.0.", 1) for name in names]
        prediction, features = student.trace(x_t, t, told, student.kind, inside)
        losses = {"prediction": terms.squared(prediction, target, mask).mean()}
        losses["total"] = losses["prediction"]
        if names:
            pairs = zip(features.values(), wanted.values(), strict=True)
            errors = [terms.squared(mine, theirs).mean() for mine, theirs in pairs]
            losses["features"] = torch.stack(errors).mean()
            losses["total"] = losses["total"] + self.config.feature * losses["features"]
        if self.config.adversarial:
            made = self.path.convert(prediction, x_t, t, student.kind, "x_0")
            logits = self._own(self._judged(roles, made, cond, rng), style)
            losses["adversarial"] = terms.hinge_student(logits).mean()
            losses["total"] = losses["total"] + self.config.adversarial * losses["adversarial"]
        return losses

    def _telling(
        self, roles: Roles, real: Tensor, made: Tensor, cond: guidance.Cond, style: Tensor, rng: Rng
    ) -> Losses:
        """The head's hinges: of the real and the made in a style, and of the real in any other."""
        logits = self._judged(roles, real, cond, rng)
        fake = self._own(self._judged(roles, made, cond, rng), style)
        told = terms.hinge_head(self._own(logits, style), fake).mean()
        others = nn.functional.one_hot(style, self.teachers)[:, None] == 0
        mistaken = terms.mean(nn.functional.relu(1 + logits), others.expand_as(logits)).mean()
        return {"total": told + mistaken, "told": told, "mistaken": mistaken}

    def _judged(self, roles: Roles, x_0: Tensor, cond: guidance.Cond, rng: Rng) -> Tensor:
        """Logits (b, heads, teachers) of x_0, noised again, to be each teacher's."""
        judge, head = roles["teacher"], roles["head"]
        t = TIMES[self.config.time](self.path, x_0.shape[:1], rng)
        x_t = self.path.add_noise(x_0, self.path.noise(x_0.shape, rng), t)
        logits = head(judge.trace(x_t, t, cond, judge.kind, head.names)[1])
        return logits[..., None] if self.teachers == 1 else logits

    def _own(self, logits: Tensor, style: Tensor) -> Tensor:
        """Of `_judged`, the logits (b, heads) of each row's own style."""
        return logits.gather(2, style[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]

    def _features(self, teacher: Any) -> tuple[str, ...]:
        return (self.config.features or blocks(teacher)) if self.config.feature else ()

    def _taught(
        self,
        roles: Roles,
        x_t: Tensor,
        t: Tensor,
        cond: guidance.Cond,
        style: Tensor,
        names: tuple[str, ...],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(prediction, {name: (b, tokens, d)}) of each row by the teacher of its style."""
        kind, rows, values, traced = roles["student"].kind, [], [], []
        for i in range(self.teachers):
            here = (style == i).nonzero()[:, 0]
            if len(here):
                own = {name: value[here] for name, value in cond.items()}
                teacher = roles[base.teacher_name(i)]
                value, features = teacher.trace(x_t[here], t[here], own, kind, names)
                rows.append(here)
                values.append(value)
                traced.append(features)
        order = torch.cat(rows).argsort()
        features = {name: torch.cat([each[name] for each in traced])[order] for name in names}
        return torch.cat(values)[order], features

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps or STEPS, times=self.config.times or None)
