"""Distributions of the training time t, drawn on any Path.

One function per distribution, all of the signature `(path, shape, rng, **parameters) -> t`, float32
on the path's clock. Uniform and logit-normal are uniform or normal on the path's own clock u;
log-normal is in sigma / alpha, so it means the same noise on every path.
Sources: logit-normal and shift, Esser et al. 2024 (arXiv 2403.03206, eq. 19 and 23); log-normal,
Karras et al. 2022 (arXiv 2206.00364, table 1); Student-t, Lee et al. 2024 (TCM, arXiv 2410.14895).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genkit.paths import Path, TrigFlow
from genkit.rng import Rng


def uniform(
    path: Path, shape: Sequence[int], rng: Rng, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """u uniform in [low, high) of the path's clock."""
    return path.time(low + (high - low) * rng.uniform(shape))


def logit_normal(
    path: Path, shape: Sequence[int], rng: Rng, mean: float = 0.0, std: float = 1.0
) -> Tensor:
    """u = sigmoid(N(mean, std^2)); a larger mean trains more noise."""
    return path.time(torch.sigmoid(mean + std * rng.normal(shape)))


def shifted(
    path: Path,
    shape: Sequence[int],
    rng: Rng,
    shift: float = 3.0,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """u uniform in [low, high), then u -> shift u / (1 + (shift - 1) u), as larger pictures
    need."""
    u = low + (high - low) * rng.uniform(shape)
    return path.time(shift * u / (1 + (shift - 1) * u))


def log_normal(
    path: Path, shape: Sequence[int], rng: Rng, mean: float = -1.2, std: float = 1.2
) -> Tensor:
    """sigma / alpha = exp(N(mean, std^2)), clipped to the path's range."""
    ratio = torch.exp(mean + std * rng.normal(shape, torch.float64))
    return torch.clamp(path.t_of_ratio(ratio), path.t_min, path.t_max).float()


def trig_log_normal(
    trig: TrigFlow, path: Path, shape: Sequence[int], rng: Rng, mean: float, std: float
) -> Tensor:
    """`log_normal` on TrigFlow for a network on `path`: within the noise levels of that path, and a
    little inside, as at its very ends a path's clock need not have a derivative."""
    ends = torch.tensor([path.t_min, path.t_max]).double()
    low, high = trig.t_of_angle(path.angle(ends)).tolist()
    t = log_normal(trig, shape, rng, mean, std)
    return t.clamp(max(low + 1e-5, 1e-4), min(high - 1e-5, trig.t_max - 1e-4))


def student_t(
    path: Path, shape: Sequence[int], rng: Rng, mean: float = 0.0, std: float = 0.2, df: float = 2.0
) -> Tensor:
    """log(sigma / alpha) heavy-tailed: mean + std T_df, T by Bailey's polar form (1994)."""
    u = torch.clamp(rng.uniform(shape, torch.float64), min=1e-12)
    direction = torch.cos(2 * math.pi * rng.uniform(shape, torch.float64))
    draw = torch.sqrt(df * (u ** (-2 / df) - 1)) * direction
    ratio = torch.exp(torch.clamp(mean + std * draw, -40.0, 40.0))
    return torch.clamp(path.t_of_ratio(ratio), path.t_min, path.t_max).float()


TIMES: dict[str, Callable[..., Tensor]] = {
    each.__name__: each for each in (uniform, logit_normal, shifted, log_normal, student_t)
}
