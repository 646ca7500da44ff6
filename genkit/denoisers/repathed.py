"""A Denoiser on another path: change of path without a quotient, for any method on any teacher.

The wrapper of rCM (arXiv 2510.08431) is its case of TrigFlow around rectified flow; the mapping
itself is in genkit.paths.
"""

from __future__ import annotations

from torch import Tensor

from genkit.denoisers.base import Around, Denoiser
from genkit.guidance import Cond
from genkit.paths import Path, expand


class Repathed(Around):
    """A Denoiser on another path: the same posterior, asked at the matching noise angle.

    With x_inner = c x and times matched by angle, differentiating along this path's time gives
    v = ((dt_inner/dt) v_inner - (dc/dt) x) / c: no quotient by sigma, so it is exact at both ends
    and safe under jvp (for TrigFlow around rectified flow it is rCM's wrapper, arXiv 2510.08431).
    """

    def __init__(self, inner: Denoiser, path: Path) -> None:
        super().__init__(inner, path, "velocity")
        self.time_scale = 1.0

    def raw(self, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
        c, there = self.path.repath(timestep, self.inner.path)
        d_c, rate = self.path.repath_rates(timestep, self.inner.path)
        x_there = x_t * expand(c.to(x_t.dtype), x_t)
        v_there = self.inner.predict(x_there, there.to(x_t.dtype), cond, "velocity")
        on_x, on_v = (-d_c / c).to(x_t.dtype), (rate / c).to(x_t.dtype)
        return expand(on_x, x_t) * x_t + expand(on_v, x_t) * v_there
