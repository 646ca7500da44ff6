"""EDM's preconditioning: a Denoiser around a network that sees and gives unit variance.

Karras et al. 2022 (arXiv 2206.00364, table 1).
"""

from __future__ import annotations

from typing import Any

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
