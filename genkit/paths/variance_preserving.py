"""Variance-preserving paths, written through their log-SNR: the continuous SDE and DDPM's indices.

Song et al. 2020 (arXiv 2011.13456), Ho et al. 2020 (arXiv 2006.11239). Not as published: the
discrete path interpolates its log-SNR between indices, so that it has a time derivative; a terminal
index of zero SNR is set to alpha^2 = 2^-24, as diffusers does, or to a fourth of its neighbour's
where that is smaller still, so that the SNR falls everywhere.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from genkit.paths.base import Path


class _VariancePreserving(Path):
    """alpha^2 + sigma^2 = 1, written through the log-SNR lambda(t) = log(alpha^2 / sigma^2)."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """lambda(t), decreasing."""

    @abstractmethod
    def d_log_snr(self, t: Tensor) -> Tensor:
        """d lambda / dt."""

    @abstractmethod
    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr`."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sqrt(torch.sigmoid(self.log_snr(t)))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(torch.sigmoid(-self.log_snr(t)))

    def d_alpha(self, t: Tensor) -> Tensor:
        log_snr = self.log_snr(t)
        alpha = torch.sqrt(torch.sigmoid(log_snr))
        return 0.5 * alpha * torch.sigmoid(-log_snr) * self.d_log_snr(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        log_snr = self.log_snr(t)
        sigma = torch.sqrt(torch.sigmoid(-log_snr))
        return -0.5 * sigma * torch.sigmoid(log_snr) * self.d_log_snr(t)

    def start_scale(self, t: Tensor) -> Tensor:
        """1: x_T ~ N(0, I) as DDPM samples (2006.11239, algorithm 2) and diffusers starts, although
        sigma is a little less there (0.998 on Stable Diffusion's schedule)."""
        return torch.ones_like(t)

    def t_of_angle(self, angle: Tensor) -> Tensor:
        return self.t_of_log_snr(-2 * (torch.log(torch.sin(angle)) - torch.log(torch.cos(angle))))


class VP(_VariancePreserving):
    """Continuous VP SDE with beta(t) linear in t, t in [t_min, 1] (arXiv 2011.13456, eq. 32-33)."""

    name = "vp"

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> None:
        self.beta_min, self.beta_max, self.t_min, self.t_max = beta_min, beta_max, t_min, 1.0

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def log_snr(self, t: Tensor) -> Tensor:
        log_alpha = self._log_alpha(t)
        return 2 * log_alpha - torch.log(-torch.expm1(2 * log_alpha))

    def d_log_snr(self, t: Tensor) -> Tensor:
        d_log_alpha = -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))
        return 2 * d_log_alpha / -torch.expm1(2 * self._log_alpha(t))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Root of the quadratic in t, in the form without cancellation."""
        target = torch.nn.functional.softplus(-log_snr)
        slope = self.beta_max - self.beta_min
        root = torch.sqrt(self.beta_min**2 + 2 * slope * target)
        t = 2 * target / (self.beta_min + root)
        return torch.clamp(t, self.t_min, self.t_max)

    def time(self, u: Tensor) -> Tensor:
        return self.t_min + u * (self.t_max - self.t_min)

    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "beta_min": self.beta_min,
            "beta_max": self.beta_max,
            "t_min": self.t_min,
        }


class DiscreteVP(_VariancePreserving):
    """DDPM's VP on indices 0..N-1, as a float index; log-SNR interpolated linearly between them.

    `alphas_cumprod` (alpha^2 per index, decreasing) fixes it; the three beta schedules are
    diffusers' ("linear", "scaled_linear" and "squaredcos_cap_v2", arXiv 2102.09672 eq. 17).
    """

    name = "discrete_vp"
    t_min = 0.0

    def __init__(
        self,
        beta_schedule: str = "scaled_linear",
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        num_train_timesteps: int = 1000,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        self._config = {
            "beta_schedule": beta_schedule,
            "beta_start": beta_start,
            "beta_end": beta_end,
            "num_train_timesteps": num_train_timesteps,
            "rescale_betas_zero_snr": rescale_betas_zero_snr,
        }
        betas = _betas(beta_schedule, beta_start, beta_end, num_train_timesteps)
        alpha = torch.cumprod(1 - betas, 0).sqrt()
        if rescale_betas_zero_snr:  # arXiv 2305.08891, algorithm 1
            alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
            alpha[-1] = min(2.0**-12, float(alpha[-2]) / 2)
        self.alphas_cumprod = alpha**2
        self.t_max = float(num_train_timesteps - 1)
        self._table = torch.log(self.alphas_cumprod) - torch.log1p(-self.alphas_cumprod)

    def _interval(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        table = self._table.to(t.device)
        low = torch.clamp(t.detach().floor().long(), 0, len(table) - 2)
        return low, table[low].to(t.dtype), table[low + 1].to(t.dtype)

    def log_snr(self, t: Tensor) -> Tensor:
        low, left, right = self._interval(t)
        return left + (t - low) * (right - left)

    def d_log_snr(self, t: Tensor) -> Tensor:
        _, left, right = self._interval(t)
        return right - left

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        table = self._table.to(log_snr.device)
        low = torch.searchsorted(-table, -log_snr.detach().double().contiguous()) - 1
        low = torch.clamp(low, 0, len(table) - 2)
        left, right = table[low].to(log_snr.dtype), table[low + 1].to(log_snr.dtype)
        return torch.clamp(low + (log_snr - left) / (right - left), self.t_min, self.t_max)

    def time(self, u: Tensor) -> Tensor:
        return u * self.t_max

    def grid(self, steps: int) -> Tensor:
        """The whole indices that diffusers calls "trailing": N - 1 first, then every N / steps."""
        n = self.t_max + 1
        return torch.round(n - torch.arange(steps, dtype=torch.float64) * (n / steps)) - 1

    def config(self) -> dict[str, Any]:
        return {"name": self.name, **self._config}


def _betas(schedule: str, start: float, end: float, n: int) -> Tensor:
    if schedule == "linear":
        return torch.linspace(start, end, n, dtype=torch.float64)
    if schedule == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64) ** 2
    if schedule == "squaredcos_cap_v2":
        u = torch.arange(n + 1, dtype=torch.float64) / n
        bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return torch.clamp(1 - bar[1:] / bar[:-1], max=0.999)
    raise ValueError(
        f"unknown beta_schedule {schedule!r}; choose linear, scaled_linear or squaredcos_cap_v2"
    )
