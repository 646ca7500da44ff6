"""Preconditioning around networks: EDM's, and the boundary condition of consistency functions.

EDM: Karras et al. 2022 (arXiv 2206.00364, table 1), for networks that see and give unit variance.
Boundary condition: Song et al. 2023 (arXiv 2303.01469, eq. 5 and appendix C).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genkit.denoisers.base import Around, Denoiser, NetworkDenoiser
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

        def bare(x: Tensor, level: Tensor) -> Tensor:
            return self.inner.raw(x, level * self.time_scale, cond)

        return preconditioned(bare, x_t, wide(timestep) / self.time_scale, self.sigma_data)

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
    sigma_data: float,
    sigma_min: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """c_skip x + c_out F(c_in x, c_noise) of a network F = evaluate(c_in x, log(sigma) / 4), as
    `edm_weights` has them; with a mask, of a prefix of x's shape, 0 outside of it."""
    level = wide(sigma)
    weights = edm_weights(level, sigma_data, sigma_min)
    c_skip, c_out, c_in = (expand(c.to(x_t.dtype), x_t) for c in weights)
    x_0 = c_skip * x_t + c_out * evaluate(c_in * x_t, edm_time(level).to(x_t.dtype))
    return x_0 if mask is None else x_0 * expand(mask, x_0).to(x_0.dtype)


def edm_denoiser(bare: NetworkDenoiser, path: EDM, sigma_data: float) -> Denoiser:
    """A fresh network as a preconditioned denoiser of EDM's path.

    Around most, the preconditioning is put, and the scheduler that samples them does it. A network
    that has sigma_data in its config is called with it (`genkit.denoisers.calls`), its output being
    0 outside a mask, which no scheduler knows: such a config takes the numbers.
    """
    network: Any = bare.network
    if "sigma_data" not in network.config:
        return EDMPreconditioned(bare, path, sigma_data)
    network.register_to_config(sigma_data=sigma_data, sigma_min=path.t_min)
    scale, encoder = bare.time_scale, bare.encoder
    return NetworkDenoiser(network, bare.call, path, "x_0", scale, encoder=encoder)


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
