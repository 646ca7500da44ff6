"""Probability paths x_t = alpha(t) x_0 + sigma(t) eps: the one place that knows schedules.

A schedule is written once, as alpha, sigma and their hand-written derivatives, plus the inverse of
its noise angle theta = atan(sigma / alpha). Everything else (conversion between prediction kinds,
change of path) follows from these in the base class. The angle is used rather than sigma / alpha
because it stays finite at pure noise, where rectified flow and TrigFlow have alpha = 0.

Sources: rectified flow (Liu et al. 2022, arXiv 2209.03003), VP (Song et al. 2020, 2011.13456),
DDPM (Ho et al. 2020, arXiv 2006.11239), EDM (Karras et al. 2022, arXiv 2206.00364),
TrigFlow (Lu & Song 2024, arXiv 2410.11081), v-prediction (Salimans & Ho 2022, arXiv 2202.00512).
Not as published: the discrete VP path interpolates its log-SNR between indices, so that it has a
time derivative; a terminal index of zero SNR is set to alpha^2 = 2^-24, as diffusers does.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from genkit.rng import Rng

Kind = Literal["x_0", "eps", "velocity", "v_prediction"]
KINDS: tuple[str, ...] = get_args(Kind)


def wide(t: Tensor) -> Tensor:
    """t in float64, where schedules and their quotients are computed (float32 on MPS, which has no
    float64)."""
    return t.float() if t.device.type == "mps" else t.double()


def expand(t: Tensor, x: Tensor) -> Tensor:
    """t with trailing axes of length 1, so that it multiplies x; t's shape is a prefix of x's."""
    if t.shape != x.shape[: t.ndim]:
        raise ValueError(
            f"t has shape {tuple(t.shape)}, which is no prefix of x_t's {tuple(x.shape)}; "
            "give one time per sample (b,), or per frame (b, f)"
        )
    return t.reshape(*t.shape, *([1] * (x.ndim - t.ndim)))


class Path(ABC):
    """x_t = alpha(t) x_0 + sigma(t) eps, t growing with noise, in the path's own unit.

    `t_min` and `t_max` bound the times a network on this path is asked for; `t_max` is where
    sampling starts. All methods take tensors of any shape and are differentiable in t.
    """

    name: ClassVar[str]
    t_min: float
    t_max: float

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale alpha(t) >= 0."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale sigma(t) >= 0."""

    @abstractmethod
    def d_alpha(self, t: Tensor) -> Tensor:
        """d alpha / dt."""

    @abstractmethod
    def d_sigma(self, t: Tensor) -> Tensor:
        """d sigma / dt."""

    @abstractmethod
    def t_of_angle(self, angle: Tensor) -> Tensor:
        """The time whose noise angle atan(sigma / alpha) is `angle`, in [0, pi/2]."""

    @abstractmethod
    def time(self, u: Tensor) -> Tensor:
        """u in [0, 1] -> t on the path's own clock, increasing; methods draw u, never t."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain data from which `make_path` rebuilds this path."""

    def angle(self, t: Tensor) -> Tensor:
        """Noise angle atan(sigma / alpha), in [0, pi/2]."""
        return torch.atan2(self.sigma(t), self.alpha(t))

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha is `ratio` (>= 0, infinity allowed)."""
        return self.t_of_angle(torch.atan(ratio))

    def noise(self, shape: Sequence[int], rng: Rng) -> Tensor:
        """eps of the prior, unit Gaussian, `shape` with the batch first."""
        return rng.normal(shape)

    def start(self, eps: Tensor) -> Tensor:
        """x at t_max for a given eps: sigma(t_max) eps, the data's share being dropped."""
        return eps * float(self.sigma(torch.tensor(self.t_max, dtype=torch.float64)))

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t for given data and noise; t's shape is a prefix of x_0's."""
        wide_t = wide(t)
        alpha, sigma = self.alpha(wide_t).to(x_0.dtype), self.sigma(wide_t).to(x_0.dtype)
        return expand(alpha, x_0) * x_0 + expand(sigma, x_0) * eps

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor, kind: Kind) -> Tensor:
        """The value of `kind` for known data and noise: a x_0 + b eps."""
        a, b = (expand(c.to(x_0.dtype), x_0) for c in self._weights(wide(t), kind))
        return a * x_0 + b * eps

    def _weights(self, t: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """(a, b) such that the kind's value is a x_0 + b eps."""
        if kind == "x_0":
            return torch.ones_like(t), torch.zeros_like(t)
        if kind == "eps":
            return torch.zeros_like(t), torch.ones_like(t)
        if kind == "velocity":
            return self.d_alpha(t), self.d_sigma(t)
        if kind == "v_prediction":
            alpha, sigma = self.alpha(t), self.sigma(t)
            norm = torch.sqrt(alpha**2 + sigma**2)
            return -sigma / norm, alpha / norm
        raise ValueError(f"unknown prediction kind {kind!r}; choose one of {', '.join(KINDS)}")

    def convert(self, value: Tensor, x_t: Tensor, t: Tensor, source: Kind, kind: Kind) -> Tensor:
        """A prediction of kind `source` as one of kind `kind`.

        With value = a x_0 + b eps and x_t = alpha x_0 + sigma eps, the kind c x_0 + d eps is
        ((c b - d a) x_t + (d alpha - c sigma) value) / (alpha b - sigma a). The quotient is
        singular only where the question is (eps of an x_0-prediction at sigma = 0, x_0 of an
        eps-prediction at alpha = 0); x_0 and eps of a velocity are exact everywhere.
        """
        if source == kind:
            return value
        wide_t = wide(t)
        alpha, sigma = self.alpha(wide_t), self.sigma(wide_t)
        a, b = self._weights(wide_t, source)
        c, d = self._weights(wide_t, kind)
        scale = alpha * b - sigma * a
        on_x = ((c * b - d * a) / scale).to(x_t.dtype)
        on_value = ((d * alpha - c * sigma) / scale).to(x_t.dtype)
        return expand(on_x, x_t) * x_t + expand(on_value, x_t) * value

    def repath(self, t: Tensor, other: Path) -> tuple[Tensor, Tensor]:
        """Where this path's time t lies on another path: (c, t') with x' = c x and equal angles.

        x' = c x has the same x_0 and eps, hence the same posterior; c is the quotient of the two
        paths' norms sqrt(alpha^2 + sigma^2), which is finite where sigma / alpha is not.
        """
        wide_t = wide(t)
        there = other.t_of_angle(self.angle(wide_t))
        return other._norm(there) / self._norm(wide_t), there

    def repath_rates(self, t: Tensor, other: Path) -> tuple[Tensor, Tensor]:
        """(dc/dt, dt'/dt) of `repath` along this path's time, without dividing by sigma.

        The velocity there is (v - (dc/dt / c) c x ...) solved from x' = c x:
        dx'/dt = (dc/dt) x + c v = v' dt'/dt.
        """
        wide_t = wide(t)
        c, there = self.repath(wide_t, other)
        rate = self._d_angle(wide_t) / other._d_angle(there)
        norm, norm_there = self._norm(wide_t), other._norm(there)
        d_c = other._d_norm(there) * rate / norm - norm_there / norm**2 * self._d_norm(wide_t)
        return d_c, rate

    def _norm(self, t: Tensor) -> Tensor:
        return torch.sqrt(self.alpha(t) ** 2 + self.sigma(t) ** 2)

    def _d_norm(self, t: Tensor) -> Tensor:
        return (self.alpha(t) * self.d_alpha(t) + self.sigma(t) * self.d_sigma(t)) / self._norm(t)

    def _d_angle(self, t: Tensor) -> Tensor:
        cross = self.alpha(t) * self.d_sigma(t) - self.sigma(t) * self.d_alpha(t)
        return cross / self._norm(t) ** 2


class RectifiedFlow(Path):
    """x_t = (1 - t) x_0 + t eps, t in [0, 1] (arXiv 2209.03003, with time reversed)."""

    name = "rectified_flow"
    t_min, t_max = 0.0, 1.0

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
        return {"name": self.name}


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

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        self.t_min, self.t_max, self.rho = sigma_min, sigma_max, rho

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
        }


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
        self.alphas_cumprod = torch.clamp(alpha**2, min=2.0**-24)
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


PATHS: dict[str, type[Path]] = {
    path.name: path for path in (RectifiedFlow, TrigFlow, EDM, VP, DiscreteVP)
}


def make_path(config: dict[str, Any]) -> Path:
    """The path of a config written by `Path.config`; ValueError for an unknown name."""
    arguments = dict(config)
    name = arguments.pop("name", None)
    if name not in PATHS:
        raise ValueError(f"unknown path {name!r}; choose one of {', '.join(PATHS)}")
    return PATHS[name](**arguments)
