"""SiD: score identity distillation, the Fisher divergence of teacher and student, without data.

Zhou et al. 2024 (arXiv 2404.04057); with `adversarial`, SiDA (Zhou et al. 2024, arXiv 2410.14919).
The student's loss is Delta ((D_teacher - x_0) - alpha Delta), Delta = D_teacher - D_fake, and its
gradient flows through x_t and both networks, the frozen teacher's too. The student starts as the
teacher at a middle noise level, G(z) = D(sigma z, t): asked at pure noise a teacher returns the
data mean, and there would be nothing to push apart. The paper's G(2.5 z, sigma = 2.5) is EDM's;
here `start` is sigma / alpha of that level on any path, and data's share is dropped as there.
Faithful in loss, alpha, start and one fake turn to a student's; not in: the normaliser, over the
batch by default (per sample it stalls low dimensions at a wrong point where alpha > 1); times,
uniform on the path's own clock up to a noise like the paper's (on EDM its own are --high 0.8); the
fake score's loss, flow matching's; SiDA's GAN, which is DMD2's head (the paper's
is normalised per GPU). Data are read for their conditions alone unless there is a GAN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genkit import terms
from genkit.guidance import Cond
from genkit.methods import dmd2
from genkit.methods.base import Batch, Losses, Moment, Roles, Stage
from genkit.rng import Rng
from genkit.sampling import Sampler, one_level


class Method(dmd2.Method):
    family = "distribution"
    paper = "arXiv 2404.04057"
    needs = ("data",)
    framewise = False

    @dataclass
    class Config(dmd2.Matching):
        lr: float = 1e-4
        alpha: float = 1.2
        """0.5 is half the Fisher divergence's gradient, 1 leaves out that of where it is taken,
        more goes beyond."""
        start: float = 2.5
        """Noise level sigma / alpha at which the student begins and is always asked, about five
        times the deviation of the data."""
        fake_turns: int = 1
        low: float = 0.0
        high: float = 0.96
        adversarial: float = 0.0
        """Weight of the GAN term in the student's loss, SiDA's; 0 leaves the head out."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if not config.start > 0:
            raise ValueError(f"start is {config.start}; give a noise level sigma / alpha above 0")

    def stages(self) -> list[Stage]:
        return [Stage("match", guidance=self.guidance)]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        if "student" in roles.turn:
            return self._student(roles, batch, rng)
        return self._critics(roles, batch, rng)

    def _matching(
        self, roles: Roles, x_0: Tensor, x_t: Tensor, t: Tensor, cond: Cond, mask: Tensor | None
    ) -> Tensor:
        # With gradient: the turn has frozen both networks' weights, and x_t is the student's.
        teacher = roles["teacher"].predict(x_t, t, cond, "x_0")
        fake = roles["fake"].predict(x_t, t, cond, "x_0")
        over = self.config.normaliser
        return terms.score_identity(x_0, teacher, fake, self.config.alpha, mask, over)

    def sampler(self) -> Sampler:
        return one_level(self.path, self.config.start)
