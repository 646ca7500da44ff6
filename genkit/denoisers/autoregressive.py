"""A sequence of Gaussian frames whose causal denoiser is known exactly: x_i = rho x_{i-1} + e_i.

Elements are independent, e_i ~ N(0, 1 - rho^2), so every frame is N(0, 1) and neighbours have the
correlation rho. Frames noised at levels of their own are what a Kalman filter observes (Kalman
1960), so the posterior of frame i given it and all before it is a closed form for any t (b, f):
what flow matching with independent levels learns, and, at clean levels, the velocity of N(rho
x_{i-1}, 1 - rho^2). It stands where a causal network does, with a cache of the last posterior.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from genkit.denoisers.causal import CausalDenoiser
from genkit.guidance import Cond
from genkit.paths import Path, expand, wide

Belief = tuple[Tensor, Tensor]  # mean (b, ...) and variance, broadcast to it, of a frame


class _Cache:
    """The beliefs about the frames there have been, the last one being what counts."""

    def __init__(self) -> None:
        self.beliefs: list[Belief] = []
        self.fresh: list[Belief] = []

    @property
    def length(self) -> int:
        return len(self.beliefs)

    def commit(self, frames: int) -> None:
        self.beliefs += self.fresh[-frames:]

    def back(self, length: int) -> None:
        del self.beliefs[length:]


class AutoRegressive(nn.Module):
    """The exact velocity of frames (b, f, ...) at times (b, f), given by conditions as a causal
    network is: alone, behind a cache, or with a clean past. rho: a parameter, so it can be learned.
    """

    def __init__(self, path: Path, rho: float, context_noise: float = 0.0) -> None:
        super().__init__()
        self.path, self.config = path, {"context_noise": context_noise}
        self.rho = nn.Parameter(torch.tensor(rho, dtype=torch.float64))

    def cache(self, batch: int, slack: int = 0) -> Any:
        """An empty past; `batch` and `slack` bound nothing here."""
        return _Cache()

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        x, now = wide(x_t), wide(t)
        past: Any = cond.get("past")
        cache: Any = cond.get("cache")
        seen = x if past is None else wide(past)
        when = now if past is None else wide(cond["past_timestep"])
        belief = cache.beliefs[-1] if cache is not None and cache.beliefs else None
        values, beliefs = [], []
        for i in range(x.shape[1]):
            prior = self._next(belief, x[:, i])
            values.append(self._velocity(prior, x[:, i], now[:, i]))
            belief = self._observed(prior, seen[:, i], when[:, i])
            beliefs.append(belief)
        if cache is not None:
            cache.fresh = beliefs
        return torch.stack(values, 1).to(x_t.dtype)

    def _next(self, belief: Belief | None, like: Tensor) -> Belief:
        """What is known of a frame before it is seen."""
        if belief is None:
            return torch.zeros_like(like), torch.ones_like(like)
        mean, var = belief
        return self.rho * mean, self.rho**2 * var + 1 - self.rho**2

    def _observed(self, prior: Belief, x_t: Tensor, t: Tensor) -> Belief:
        """What is known once alpha x_0 + sigma eps = x_t is seen."""
        alpha, sigma = expand(self.path.alpha(t), x_t), expand(self.path.sigma(t), x_t)
        mean, var = prior
        gain = alpha * var / (alpha**2 * var + sigma**2)
        return mean + gain * (x_t - alpha * mean), var * (1 - gain * alpha)

    def _velocity(self, prior: Belief, x_t: Tensor, t: Tensor) -> Tensor:
        """alpha' E[x_0 | x_t] + sigma' E[eps | x_t] of x_0 ~ N(mean, var)."""
        path, (mean, var) = self.path, prior
        alpha, sigma, d_alpha, d_sigma = (
            expand(f(t), x_t) for f in (path.alpha, path.sigma, path.d_alpha, path.d_sigma)
        )
        off = (x_t - alpha * mean) / (alpha**2 * var + sigma**2)
        return d_alpha * (mean + alpha * var * off) + d_sigma * sigma * off


def autoregressive(path: Path, rho: float, context_noise: float = 0.0) -> CausalDenoiser:
    """The exact causal denoiser; its conditions may be anything per frame. ValueError for a rho
    that is no correlation."""
    if not -1 < rho < 1 or not math.isfinite(rho):
        raise ValueError(f"rho is {rho}; give a correlation between -1 and 1")
    network = AutoRegressive(path, rho, context_noise)
    return CausalDenoiser(network, _call, path, "velocity")


def _call(network: Any, x_t: Tensor, t: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
    return network(x_t, t, cond)
