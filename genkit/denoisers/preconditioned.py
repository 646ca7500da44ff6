"""Preconditioning around networks: EDM's, and the boundary condition of consistency functions.

EDM: Karras et al. 2022 (arXiv 2206.00364, table 1), for networks that see and give unit variance.
Boundary condition: Song et al. 2023 (arXiv 2303.01469, eq. 5 and appendix C).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genkit.denoisers.base import Around, Denoiser
from genkit.guidance import Cond
from genkit.paths import EDM, edm_time, edm_weights, expand, wide


class EDMPreconditioned(Around):
    """c_skip x + c_out F(c_in x, c_noise): a bare network F on the EDM path (2206.00364, table 1).

    `inner` evaluates F; it is fed c_in x at log(sigma) / 4 times its own time scale. sigma_data:
    the data's standard deviation. Losses see the whole; the sampling loop evaluates F alone, and
    the scheduler, which leaves with it, does the rest.
    """

    def __init__(self, inner: Denoiser, path: EDM, sigma_data: float = 0.5) -> None:
        super().__init__(inner, path, "x_0")
        self.sigma_data = sigma_data

    @property
    def network(self) -> Any:
        """The network of F."""
        return self.inner.network

    def raw(self, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
        assert self.sigma_data is not None
        sigma = wide(timestep) / self.time_scale
        c_in = edm_weights(sigma, self.sigma_data)[2].to(x_t.dtype)
        told = (edm_time(sigma) * self.time_scale).to(x_t.dtype)
        value = self.inner.raw(expand(c_in, x_t) * x_t, told, cond)
        return self.answered(value, x_t, sigma)

    def evaluate(
        self, x: Tensor, timestep: Tensor, cond: Cond, following: Tensor | None = None
    ) -> Tensor:
        """F of an x and a time that the scheduler has prepared."""
        return self.inner.raw(x, timestep, cond)

    def answered(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """c_skip x + c_out output."""
        assert self.sigma_data is not None
        c_skip, c_out, _ = (c.to(x.dtype) for c in edm_weights(wide(t), self.sigma_data))
        return expand(c_skip, x) * x + expand(c_out, x) * output


def preconditioned(
    evaluate: Callable[[Tensor, Tensor], Tensor],
    x_t: Tensor,
    sigma: Tensor,
    sigma_data: float = 0.5,
    sigma_min: float = 0.0,
) -> Tensor:
    """c_skip x + c_out F(c_in x, c_noise) of a network F = evaluate(c_in x, log(sigma) / 4), for a
    call that does it itself: one whose x_0 must be 0 outside a mask.

    sigma_min: the level at which the result is x itself, 0 in EDM; with CoMoSpeech's own form
    (arXiv 2305.06908, eq. 7) a teacher holds the consistency condition already.
    """
    level, data = wide(sigma), sigma_data
    above, norm = level - sigma_min, torch.sqrt(level**2 + data**2)
    c_skip, c_out = data**2 / (above**2 + data**2), above * data / norm
    c_skip, c_out, c_in = (c.to(x_t.dtype) for c in (c_skip, c_out, 1 / norm))
    value = evaluate(expand(c_in, x_t) * x_t, edm_time(level).to(x_t.dtype))
    return expand(c_skip, x_t) * x_t + expand(c_out, x_t) * value


class Boundary(Around):
    """The consistency boundary condition f(x, t_min) = x / alpha(t_min), for a network without it
    (alpha is 1 there on rectified flow, TrigFlow and EDM, and .9996 or nearer 1 on the VPs).

    f = c_skip x / alpha + (1 - c_skip) D with c_skip = d^2 / (r^2 + d^2) and
    r = ratio(t) - ratio(t_min), ratio = sigma / alpha (2303.01469, appendix C). Not faithful in one
    point: the paper's c_out multiplies a unit-variance network output; here D predicts x_0, so its
    weight is 1 - c_skip, which leaves f = D far from the boundary.
    """

    def __init__(self, inner: Denoiser, sigma_data: float = 0.5) -> None:
        super().__init__(inner, kind="x_0")
        self.deviation = sigma_data

    def raw(self, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
        t = wide(timestep) / self.time_scale
        first = torch.full_like(t, self.path.t_min)
        alpha, data = self.path.alpha(t), self.deviation
        # alpha r, so that nothing is divided by alpha, which is 0 at pure noise.
        scaled = self.path.sigma(t) - alpha * self.path.sigma(first) / self.path.alpha(first)
        norm = scaled**2 + alpha**2 * data**2
        x_0 = self.inner.predict(x_t, timestep / self.time_scale, cond, "x_0")
        on_x, on_x_0 = (alpha * data**2 / norm).to(x_t.dtype), (scaled**2 / norm).to(x_t.dtype)
        return expand(on_x, x_t) * x_t + expand(on_x_0, x_t) * x_0
