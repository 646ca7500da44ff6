"""The Path: x_t = alpha(t) x_0 + sigma(t) eps, its kinds of prediction and changes of path.

A schedule is written once, as alpha, sigma and their hand-written derivatives, plus the inverse of
its noise angle theta = atan(sigma / alpha); conversion between prediction kinds and change of path
follow from these here. The angle is used rather than sigma / alpha because it stays finite at pure
noise, where rectified flow and TrigFlow have alpha = 0. v-prediction: arXiv 2202.00512.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from genkit.paths.prior import heavy_tailed
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
    dimensions: D of PFGM++'s prior, None for the Gaussian one; velocities, ODE and regression mean
    the same with either, but x_0-predictions give a score, as distribution matching reads them, of
    the Gaussian one only.
    """

    name: ClassVar[str]
    t_min: float
    t_max: float
    dimensions: float | None = None

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
        """eps of the prior, `shape` with the batch first."""
        return self.prior(rng.normal(shape))

    def prior(self, gaussian: Tensor) -> Tensor:
        """Unit Gaussian noise (b, ...), as sampling draws it, as eps of this path's prior: itself,
        or PFGM++'s (arXiv 2302.04265) of equal direction."""
        return gaussian if self.dimensions is None else heavy_tailed(gaussian, self.dimensions)

    def grid(self, steps: int) -> Tensor:
        """The (steps,) noise levels t of a uniform grid, float64, decreasing from t_max."""
        return self.time(torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1])

    def start_scale(self, t: Tensor) -> Tensor:
        """What unit noise is multiplied by where sampling starts at t: sigma(t), the data's share
        being dropped."""
        return self.sigma(t)

    def start(self, eps: Tensor) -> Tensor:
        """x at t_max for a given eps, from which sampling starts."""
        return eps * float(self.start_scale(torch.tensor(self.t_max, dtype=torch.float64)))

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

    def flow_coordinates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha + sigma, sigma / (alpha + sigma)) at t: x / (alpha + sigma) at that time is
        rectified flow."""
        wide_t = wide(t)
        scale = self.alpha(wide_t) + self.sigma(wide_t)
        return scale, self.sigma(wide_t) / scale

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
