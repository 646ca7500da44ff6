"""SLAM: LCM whose student also learns the straight sub-path between the two ends of a step.

Xu et al. 2024 (arXiv 2404.13903, accelerating by sub-path linear approximation): for a random gamma
the student is asked at x_gamma, gamma of the way from the teacher's x_s (scaled) back to x_t, and
must give the same x_0 as the target does at x_s. gamma = 1 is LCM, bit for bit; gamma near 0 is
easy, so that the error of a step is learned piece by piece. gamma takes the place of LCM's w as the
student's further input, 1 + 10 (1 - gamma), so that a student sampled with scale 1 is at gamma = 1;
the guidance scale is one number, folded in.
Faithful to the release, sigma_gamma included: it is that of x_t as a random jump from x_s, where
the DDIM pair actually used has gamma sigma_t + (1 - gamma) (alpha_t / alpha_s) sigma_s, which the
network absorbs. Since sigma_gamma is not the path's, only a network that predicts eps on a
variance-preserving path has a meaning there: others are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond, told
from genkit.methods import lcm
from genkit.paths import expand, wide
from genkit.rng import Rng

SLOT = 10.0  # what the input differs by between gamma = 1 and gamma = 0


class Method(lcm.Method):
    family = "consistency"
    paper = "arXiv 2404.13903"
    needs = ("data",)
    paths = ("vp", "discrete_vp")
    kinds = ("eps",)

    @dataclass
    class Config(lcm.Interval):
        gamma_low: float = 0.0
        """Least gamma that is drawn; 1 is LCM."""

    def _range(self) -> tuple[float, float]:
        return self.guidance, self.guidance

    @property
    def embedded_guidance(self) -> float | None:
        """The further input at gamma = 1."""
        return 1.0

    def here(
        self,
        student: Denoiser,
        x_t: Tensor,
        t: Tensor,
        x_s: Tensor,
        s: Tensor,
        cond: Cond,
        w: Tensor,
        rng: Rng,
    ) -> Tensor:
        """x_0 = (x_gamma - sigma_gamma eps) / alpha_t."""
        low = self.config.gamma_low
        gamma = low + (1 - low) * rng.uniform(t.shape)
        x_gamma, sigma = self.between(x_t, t, x_s, s, gamma)
        slot = told(cond, 1 + SLOT * (1 - gamma), x_t)
        eps = student.predict(x_gamma, t, slot, "eps")
        alpha = self.path.alpha(wide(t))
        on_x, on_eps = ((each / alpha).to(x_t.dtype) for each in (torch.ones_like(sigma), -sigma))
        return expand(on_x, x_t) * x_gamma + expand(on_eps, x_t) * eps

    def between(
        self, x_t: Tensor, t: Tensor, x_s: Tensor, s: Tensor, gamma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(x_gamma (b, ...), sigma_gamma (b,) float64)."""
        ratio = self.path.alpha(wide(t)) / self.path.alpha(wide(s))
        on_t, on_s = (each.to(x_t.dtype) for each in (gamma, (1 - gamma) * ratio))
        x_gamma = expand(on_t, x_t) * x_t + expand(on_s, x_t) * x_s
        # (sigma_s ratio)^2 + gamma^2 (1 - ratio^2), in the form that is sigma_t to the bit at 1.
        variance = self.path.sigma(wide(t)) ** 2 - (1 - gamma.double() ** 2) * (1 - ratio**2)
        return x_gamma, torch.sqrt(variance)

    def there(self, target: Denoiser, x_s: Tensor, s: Tensor, cond: Cond, w: Tensor) -> Tensor:
        return target.predict(x_s, s, told(cond, 1.0, x_s), "x_0")
