"""DMD2: distribution matching with two time scales, a GAN head and backward simulation.

Yin et al. 2024 (arXiv 2405.14867), after DMD (arXiv 2311.18828). The student's samples are pushed
along D_teacher - D_fake; the fake score follows the student with several turns to the student's
one; a head on the fake network's features tells noised data from noised samples. With several steps
the student trains on inputs of its own sampler. Faithful but for: a regression on teacher pairs as
the first stage (a teacher asked at pure noise says the data's mean; the paper does so for SDXL
only), which may be kept while matching, as DMD did; logits at random t of the path's clock; and a
normaliser over the batch. Frames are judged given the student's own past (arXiv 2506.08009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genkit import terms, times
from genkit.guidance import Cond
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.networks.head import middle_block
from genkit.rng import Rng
from genkit.sampling import Sampler


@dataclass
class Matching(base.Distillation):
    """Settings of a method that has a fake score, and a head on a network's features."""

    fake_lr: float = 5e-4
    """Learning rate of the fake score and of the head."""
    fake_turns: int = 5
    """Turns of the fake score and head before each turn of the student."""
    low: float = 0.02
    """Least u of the path's clock at which distributions are compared."""
    high: float = 0.98
    """Largest such u."""
    shift: float = 1.0
    """Moves every t drawn while matching towards noise, u -> shift u / (1 + (shift - 1) u): shares
    of modes far apart, such as colours of the background, show nowhere else."""
    adversarial: float = 3e-3
    """Weight of the GAN term in the student's loss; 0 leaves the head out."""
    head: float = 1e-2
    """Weight of the head's loss beside the fake score's."""
    critic: Literal["fake", "teacher"] = "fake"
    """Whose features the head reads: the fake network's, which learn from the head (DMD2), or the
    frozen teacher's, which stand still under it (LADD, arXiv 2403.12015, sec. 4)."""
    features: tuple[str, ...] = ()
    """Submodules of that network whose outputs the head reads; empty: its middle block."""
    normaliser: Literal["sample", "batch"] = "batch"
    """Over what the matching's gradient is normalised."""


class Method(base.Method):
    family = "distribution"
    paper = "arXiv 2405.14867"
    needs = ("data", "pairs")
    framewise = True

    @dataclass
    class Config(Matching):
        lr: float = 2e-4
        """Student's learning rate while matching."""
        warmup_lr: float = 1e-3
        """Student's learning rate in the regression stage."""
        warmup_share: float = 0.5
        """Share of the student's steps spent on the regression; 0 is the paper's plain start."""
        regression: float = 0.0
        """Weight of a regression on pairs beside the matching, as in DMD (.25): it keeps shares."""
        steps: int = 1
        """Evaluations of the delivered student, x_0 re-noised between them."""
        alone: float = 0.0
        """For sequences: the share of turns on first frames only; a roll-out has but one."""
        opening: int = 1
        """For sequences: evaluations of the first frame, where more than the others take."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if "pairs" in self.needs and config.warmup_share == config.regression == 0:
            self.needs = ("data",)  # type: ignore[misc]  # the teacher's pairs cost minutes

    def stages(self) -> list[Stage]:
        guidance, share = self.guidance, self.config.warmup_share
        match = Stage("match", 1 - share, guidance=guidance, fresh_optimizer=True)
        lr = {"student": self.config.warmup_lr}
        warm = Stage("warm-up", share, guidance=guidance, new_data=True, lr=lr)
        return [warm, match] if share else [match]

    def nets(self) -> dict[str, Role]:
        fake = Role("teacher", lr=self.config.fake_lr, warmup=self.config.warmup, decay=True)
        roles = {"student": self.student(), "fake": fake}
        if self.config.adversarial:
            roles["head"] = replace(fake, start=None, build=self._head)
        return roles

    def _head(self, given: Mapping[str, nn.Module]) -> nn.Module:
        network = given[self.config.critic]
        return self.head_on(network, self.config.features or middle_block(network))

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        if moment.stage.name == "warm-up":
            return [("student",)]
        critics = ("fake", "head") if self.config.adversarial else ("fake",)
        return [critics] * self.config.fake_turns + [("student",)]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        if moment.stage.name == "warm-up":
            return {"total": self.one_step(roles["student"], batch["pairs"]).mean()}
        batch = {**batch, "data": self.first_frames(batch["data"], self.config.alone, rng)}
        if "student" not in roles.turn:
            return self._critics(roles, batch, rng)
        losses = self._student(roles, batch, rng)
        if self.config.regression:
            losses["regression"] = self.one_step(roles["student"], batch["pairs"]).mean()
            losses["total"] = losses["total"] + self.config.regression * losses["regression"]
        return losses

    def _generate(self, roles: Roles, data: Mapping[str, Any], rng: Rng):
        """(x_0, mask) of the student at a random evaluation of its own sampler (sec. 4.5). Padding
        is that of the data, but frames that are not learned are the data's alone."""
        noise, sampler = self.path.noise(data["x_0"].shape, rng), self.sampler()
        stop = rng.integer(0, sampler.stops)
        again = rng.generators(len(noise)) if sampler.stochastic else None
        x_0 = roles["student"].simulate(noise, data["cond"], self.scheduler, sampler, stop, again)
        return x_0, data.get("mask") if self.levels == 1 else None

    def _noised(
        self, x_0: Tensor, rng: Rng, low: float, high: float, shift: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(x_t, eps, t) at u uniform in [low, high], shifted."""
        moved = self.config.shift if shift is None else shift
        t = times.shifted(self.path, x_0.shape[: self.levels], rng, moved, low, high)
        eps = self.path.noise(x_0.shape, rng)
        return self.path.add_noise(x_0, eps, t), eps, t

    def _matching(
        self, roles: Roles, x_0: Tensor, x_t: Tensor, t: Tensor, cond: Cond, mask: Tensor | None
    ) -> Tensor:
        """Eq. 5 of DMD2 with the gradient of DMD's eq. 7, per sample (b,); methods that follow
        another divergence put their own here."""
        with torch.no_grad():
            teacher = roles["teacher"].predict(x_t, t, cond, "x_0")
            fake = roles["fake"].predict(x_t, t, cond, "x_0")
        over = self.config.normaliser
        return terms.distribution_matching(x_0, teacher, fake, mask=mask, over=over)

    def _student(self, roles: Roles, batch: Batch, rng: Rng) -> Losses:
        """The matching of fresh samples, and softplus(-d(fake))."""
        cond = batch["data"]["cond"]
        x_0, mask = self._generate(roles, batch["data"], rng)
        x_t, eps, t = self._noised(x_0, rng, self.config.low, self.config.high)
        seen = roles["teacher"].given(x_0, cond, eps)
        matching = self._matching(roles, x_0, x_t, t, seen, mask).mean()
        losses = {"total": matching, "matching": matching}
        if self.config.adversarial:
            logits = self._judged(roles, x_0, cond, rng)
            losses["adversarial"] = terms.adversarial_student(logits).mean()
            losses["total"] = losses["total"] + self.config.adversarial * losses["adversarial"]
        return losses

    def _logits(self, roles: Roles, x_t: Tensor, t: Tensor, cond: Cond):
        """(logits, velocity) of the network that the head reads, from one forward."""
        head, network = roles["head"], roles[self.config.critic].unguided
        velocity, features = network.trace(x_t, t, cond, "velocity", head.names)
        return head(features), velocity

    def _judged(self, roles: Roles, x_0: Tensor, cond: Cond, rng: Rng) -> Tensor:
        """Logits of noised x_0, at shifted times only of a fake: a teacher knows little noise."""
        shift = self.config.shift if self.config.critic == "fake" else 1.0
        x_t, eps, t = self._noised(x_0, rng, 0.0, 1.0, shift)
        seen = roles[self.config.critic].given(x_0, cond, eps)
        return self._logits(roles, x_t, t, seen)[0]

    def _critics(self, roles: Roles, batch: Batch, rng: Rng) -> Losses:
        """Denoising score matching of the fake on the student's samples, and the head's loss."""
        data, cond = batch["data"], batch["data"]["cond"]
        with torch.no_grad():
            x_0, mask = self._generate(roles, data, rng)
        # Not from 0: the velocity of a prediction of x_0 divides by sigma.
        x_t, eps, t = self._noised(x_0, rng, 1e-4, 1.0)
        fake, logits, seen = roles["fake"], None, roles["fake"].given(x_0, cond, eps)
        if self.config.adversarial and self.config.critic == "fake":
            logits, velocity = self._logits(roles, x_t, t, seen)
        else:
            velocity = fake.predict(x_t, t, seen, "velocity")
        score = terms.flow_matching(velocity, x_0, eps, self.path, t, mask, fake.kind).mean()
        if not self.config.adversarial:
            return {"total": score, "fake_score": score}
        fake_logits = self._judged(roles, x_0, cond, rng) if logits is None else logits
        real_logits = self._judged(roles, data["x_0"], cond, rng)
        head = terms.adversarial_head(real_logits, fake_logits, self.learned(data)).mean()
        return {"total": score + self.config.head * head, "fake_score": score, "head": head}

    def sampler(self) -> Sampler:
        steps, opening = self.config.steps, self.config.opening
        return Sampler(steps=steps, stochastic=max(steps, opening) > 1, opening=opening)
