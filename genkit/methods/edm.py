"""EDM: trains a teacher from data by denoising, with Karras' noise levels and weights.

Karras et al. 2022 (arXiv 2206.00364, sec. 5, table 1): log sigma is normal, the squared error of
x_0 weighs (sigma^2 + sigma_data^2) / (sigma sigma_data)^2. Faithful; on other paths sigma is
sigma / alpha. The preconditioning belongs to the network's call.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genkit import guidance, terms
from genkit.methods import base
from genkit.methods.base import Batch, Ema, Losses, Moment, Role, Roles, warmed
from genkit.rng import Rng
from genkit.sampling import Sampler
from genkit.times import log_normal


class Method(base.Method):
    family = "teacher"
    paper = "arXiv 2206.00364"
    needs = ("data",)
    has_teacher = False

    @dataclass
    class Config:
        lr: float = 1e-3
        """Learning rate at the start, decayed to 0."""
        warmup: int = 100
        """Steps over which the learning rate rises."""
        ema: float = 0.999
        """Rate of the average that is sampled and delivered."""
        weight_decay: float = 0.0
        """AdamW's weight decay."""
        log_mean: float = -1.2
        """Mean of log sigma in training."""
        log_std: float = 1.2
        """Its standard deviation."""
        sigma_data: float = 0.5
        """Standard deviation of the data."""
        drop: float = 0.1
        """Share of samples trained without their condition, where the data has one of none."""
        steps: int = 50
        """Evaluations the delivered pipeline takes by default."""

    def nets(self) -> dict[str, Role]:
        config = self.config
        student = Role(
            lr=config.lr,
            warmup=config.warmup,
            decay=True,
            weight_decay=config.weight_decay,
            ema={"export": Ema(warmed(config.ema))},
        )
        return {"student": student}

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data, config = batch["data"], self.config
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        if config.drop and self.uncond is not None:
            cond = guidance.drop(cond, self.uncond, config.drop, rng)
        eps = self.path.noise(x_0.shape, rng)
        t = log_normal(self.path, x_0.shape[:1], rng, config.log_mean, config.log_std)
        x_t = self.path.add_noise(x_0, eps, t)
        error = terms.squared(roles["student"].predict(x_t, t, cond, "x_0"), x_0, mask)
        return {"total": (error * self.weight(t)).mean()}

    def weight(self, t: Tensor) -> Tensor:
        """1 / sigma^2 + 1 / sigma_data^2, sigma in units of alpha (arXiv 2206.00364, eq. 8)."""
        sigma = self.path.sigma(t) / self.path.alpha(t)
        return 1 / sigma**2 + 1 / self.config.sigma_data**2

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)
