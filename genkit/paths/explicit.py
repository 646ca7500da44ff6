"""Paths written directly in t: rectified flow, TrigFlow and EDM.

Liu et al. 2022 (arXiv 2209.03003), Lu & Song 2024 (arXiv 2410.11081), Karras et al. 2022 (arXiv
2206.00364). Rectified flow runs with time reversed, so that t grows with noise.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genkit.paths.base import Path


class RectifiedFlow(Path):
    """x_t = (1 - t) x_0 + t eps, t in [0, 1] (arXiv 2209.03003, with time reversed)."""

    name = "rectified_flow"
    t_min, t_max = 0.0, 1.0

    def __init__(self, dimensions: float | None = None) -> None:
        self.dimensions = _dimensions(dimensions)

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def d_alpha(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def t_of_angle(self, angle: Tensor) -> Tensor:
        return torch.sin(angle) / (torch.sin(angle) + torch.cos(angle))

    def time(self, u: Tensor) -> Tensor:
        return u

    def config(self) -> dict[str, Any]:
        return {"name": self.name, **_prior(self.dimensions)}


class TrigFlow(Path):
    """x_t = cos(t) x_0 + sin(t) sigma_data eps, t in [0, pi/2] (arXiv 2410.11081, eq. 4-5)."""

    name = "trigflow"
    t_min, t_max = 0.0, math.pi / 2

    def __init__(self, sigma_data: float = 1.0) -> None:
        self.sigma_data = sigma_data

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_data * torch.sin(t)

    def d_alpha(self, t: Tensor) -> Tensor:
        return -torch.sin(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return self.sigma_data * torch.cos(t)

    def t_of_angle(self, angle: Tensor) -> Tensor:
        return torch.atan2(torch.sin(angle), self.sigma_data * torch.cos(angle))

    def time(self, u: Tensor) -> Tensor:
        return u * self.t_max

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "sigma_data": self.sigma_data}


class EDM(Path):
    """x_t = x_0 + t eps, t = sigma in [sigma_min, sigma_max] (arXiv 2206.00364); VE in its time."""

    name = "edm"

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        dimensions: float | None = None,
    ) -> None:
        self.t_min, self.t_max, self.rho = sigma_min, sigma_max, rho
        self.dimensions = _dimensions(dimensions)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def t_of_angle(self, angle: Tensor) -> Tensor:
        """sigma = tan(angle); pure noise, which this path never reaches, is its sigma_max."""
        largest = math.atan(self.t_max)
        return torch.tan(torch.clamp(angle, max=largest))

    def time(self, u: Tensor) -> Tensor:
        """Karras' grid, eq. 5: linear in sigma^(1/rho)."""
        low, high = self.t_min ** (1 / self.rho), self.t_max ** (1 / self.rho)
        return (low + u * (high - low)) ** self.rho

    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "sigma_min": self.t_min,
            "sigma_max": self.t_max,
            "rho": self.rho,
            **_prior(self.dimensions),
        }


def edm_weights(
    sigma: Tensor, data: float, sigma_min: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in) at sigma for data of deviation `data` (2206.00364, table 1).

    sigma_min: where c_skip is 1 and c_out 0, in EDM at 0; with CoMoSpeech's own form (arXiv
    2305.06908, eq. 7) a teacher holds the consistency condition already.
    """
    norm, above = torch.sqrt(sigma**2 + data**2), sigma - sigma_min
    return data**2 / (above**2 + data**2), above * data / norm, 1 / norm


def edm_time(sigma: Tensor) -> Tensor:
    """c_noise = log(sigma) / 4 (2206.00364, table 1)."""
    return torch.log(sigma) / 4


def _dimensions(given: float | None) -> float | None:
    if given is not None and not 0 < given < math.inf:
        raise ValueError(
            f"dimensions is {given}; give a number above 0, or leave it out for Gaussian noise"
        )
    return given


def _prior(dimensions: float | None) -> dict[str, float]:
    """The prior in a config, which one of Gaussian noise does not name."""
    return {} if dimensions is None else {"dimensions": float(dimensions)}
