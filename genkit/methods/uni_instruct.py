"""Uni-Instruct: any f-divergence of teacher and student, summed over all noise levels.

Wang et al. 2025 (arXiv 2505.20755). D_f falls along the noise by E_p[h(r) |s_q - s_p|^2], h = r^2
f''(r), and the student's loss has the exact gradient of that: Diff-Instruct's term, Fisher's and
score implicit matching's, each with its weight. First reverse KL, then forward KL, from SiD's start
G(2.5 z); the student waits for the fake score, the GAN for the student. Faithful in these; not in:
r is exp(logit) of the head (the release takes -loss / (1 - loss)) and is differentiated through
x_t in every term (there it is held constant, which is wrong in the student's scale); the ratio's
clamps and bins are f-distill's; the weight over noise levels is SiD's, normalised over the batch
(any positive one keeps the optimum); times, fake score and GAN are those of genkit's sid. With a
guided teacher the score is not that of the density the head sees, as in f_distill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genkit import terms
from genkit.guidance import Cond
from genkit.methods import dmd2, f_distill
from genkit.methods.base import Batch, Losses, Moment, Roles, Stage
from genkit.rng import Rng
from genkit.sampling import Sampler, one_level


class Method(f_distill.Method):
    family = "distribution"
    paper = "arXiv 2505.20755"
    needs = ("data",)

    @dataclass
    class Config(f_distill.Ratios, dmd2.Matching):
        lr: float = 1e-4
        first: f_distill.Name = "reverse_kl"
        """Divergence that is lessened first; reverse_kl is sid at alpha 0.5."""
        divergence: f_distill.Name = "forward_kl"
        """Divergence that is lessened after it."""
        first_share: float = 0.6
        """Share of the steps spent on the first; 0 leaves it out."""
        start: float = 2.5
        """Noise level sigma / alpha at which the student begins and is always asked, about five
        times the deviation of the data."""
        delay: float = 0.02
        """Turns of the fake score and head before the student's first, as a share of the student's
        steps in the first stage (the paper: 100k samples)."""
        gan_delay: float = 0.05
        """Share of the first stage without the GAN term (the paper: 200k samples)."""
        fake_turns: int = 1
        low: float = 0.0
        high: float = 0.96
        adversarial: float = 1e-2
        """Weight of the GAN term in the student's loss."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if not config.start > 0:
            raise ValueError(f"start is {config.start}; give a noise level sigma / alpha above 0")
        if config.first not in terms.DIVERGENCES:
            raise ValueError(
                f"no divergence is called {config.first!r}; choose one of "
                f"{', '.join(terms.DIVERGENCES)}"
            )
        for name in ("first_share", "delay", "gan_delay"):
            if not 0 <= getattr(config, name) <= 1:
                raise ValueError(f"{name} is {getattr(config, name)}; give a share from 0 to 1")

    def stages(self) -> list[Stage]:
        """One for each divergence, which bears its name."""
        config, w = self.config, self.guidance
        if config.first_share == 1 or config.first == config.divergence:
            return [Stage(config.first, guidance=w)]
        last = Stage(config.divergence, 1 - config.first_share, guidance=w)
        if config.first_share == 0:
            return [last]
        return [Stage(config.first, config.first_share, guidance=w), last]

    def _opening(self, moment: Moment) -> bool:
        return moment.stage.name == self.stages()[0].name

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        turns = super().turns(moment)
        if moment.step > 0 or not self._opening(moment):
            return turns
        return [("fake", "head")] * round(self.config.delay * moment.steps) + turns

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        if "student" not in roles.turn:
            return self._critics(roles, batch, rng)
        config, cond = self.config, batch["data"]["cond"]
        x_0, mask = self._generate(roles, batch["data"], rng)
        x_t, _, t = self._noised(x_0, rng, config.low, config.high)
        divergence = terms.DIVERGENCES[moment.stage.name]
        matching = self.matching(roles, x_0, x_t, t, cond, mask, divergence).mean()
        if self._opening(moment) and moment.step < config.gan_delay * moment.steps:
            return {"total": matching, "matching": matching}
        logits = self._judged(roles, x_0, cond, rng)
        adversarial = terms.adversarial_student(logits).mean()
        total = matching + config.adversarial * adversarial
        return {"total": total, "matching": matching, "adversarial": adversarial}

    def matching(
        self,
        roles: Roles,
        x_0: Tensor,
        x_t: Tensor,
        t: Tensor,
        cond: Cond,
        mask: Tensor | None,
        divergence: terms.Divergence,
    ) -> Tensor:
        """The three terms at x_t, per sample (b,)."""
        # With gradient: the turn has frozen all weights but the student's, and x_t is its own.
        teacher = roles["teacher"].predict(x_t, t, cond, "x_0")
        logits, fake = self._logits_and_fake(roles, x_t, t, cond)
        ratio = self.ratio(logits, t).to(x_0.dtype)
        over = self.config.normaliser
        return terms.expanded_divergence(x_0, teacher, fake, ratio, divergence, mask, over)

    def sampler(self) -> Sampler:
        return one_level(self.path, self.config.start)
