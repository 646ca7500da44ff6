"""EDM: trains a teacher from data as a preconditioned denoiser of any noise level.

Karras et al. 2022 (arXiv 2206.00364): x_t = x_0 + sigma eps, D = c_skip x + c_out F(c_in x,
c_noise), log sigma normal, and the squared error of D weighed so that F's own is even (table 1).
With `dimensions`, PFGM++ (Xu et al. 2023, arXiv 2302.04265): the noise has heavier tails and all
else stays. The pipeline holds preconditioning, grid and prior. Faithful in these; not in: network
and optimiser are the data set's own; conditions are dropped for guidance; no augmentation; c_noise
is told times 1000, as the networks here read times; samples follow Adams-Bashforth or Euler on
Karras' grid without its last level, not Heun.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genkit import guidance, times
from genkit.denoisers.base import Denoiser, NetworkDenoiser
from genkit.denoisers.preconditioned import edm_denoiser
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Roles
from genkit.paths import EDM, wide
from genkit.rng import Rng
from genkit.sampling import Sampler
from genkit.terms import squared


class Method(base.Method):
    family = "teacher"
    paper = "arXiv 2206.00364"
    needs = ("data",)
    paths = ("edm",)
    has_teacher = False

    @dataclass
    class Config(base.Config):
        warmup: int = 100
        time_mean: float = -1.2
        """Mean of log sigma in training."""
        time_std: float = 1.2
        """Its deviation."""
        sigma_data: float = 0.5
        """Standard deviation of the data, to which the preconditioning is set."""
        sigma_min: float = 0.002
        """Least noise level there is."""
        sigma_max: float = 80.0
        """Largest, where sampling starts."""
        dimensions: float | None = None
        """D of PFGM++'s heavy-tailed noise (the paper: 128 to 2048 for pictures); by default it is
        Gaussian, as for D without end."""
        drop: float = 0.1
        """Share of samples trained without their condition, for guidance."""
        steps: int = 50
        """Evaluations the delivered pipeline takes by default."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if not config.sigma_data > 0:
            raise ValueError(f"sigma_data is {config.sigma_data}; give a deviation above 0")

    @classmethod
    def fresh(cls, config: Config, bare: NetworkDenoiser) -> Denoiser:
        if not 0 < config.sigma_min < config.sigma_max:
            raise ValueError(
                f"sigma_min is {config.sigma_min} and sigma_max {config.sigma_max}; give positive "
                "numbers, the first the smaller"
            )
        path = EDM(config.sigma_min, config.sigma_max, dimensions=config.dimensions)
        return edm_denoiser(bare, path, config.sigma_data)

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        config, data = self.config, batch["data"]
        x_0, cond = data["x_0"], data["cond"]
        if config.drop and self.uncond is not None:
            cond = guidance.drop(cond, self.uncond, config.drop, rng)
        eps = self.path.noise(x_0.shape, rng)
        t = times.log_normal(self.path, x_0.shape[:1], rng, config.time_mean, config.time_std)
        x_t = self.path.add_noise(x_0, eps, t)
        denoised = roles["student"].predict(x_t, t, cond, "x_0")
        loss = self.weight(t).to(x_0.dtype) * squared(denoised, x_0, data.get("mask"))
        return {"total": loss.mean()}

    def weight(self, sigma: Tensor) -> Tensor:
        """lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, (b,) float64 (table 1),
        which is 1 / c_out^2."""
        sigma, data = wide(sigma), self.config.sigma_data
        return (sigma**2 + data**2) / (sigma * data) ** 2

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)
