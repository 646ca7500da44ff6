"""Denoisers that know the right answer: Gaussians, Gaussian mixtures, one of each class; any Path.

Data x_0 ~ N(m, c^2) gives x_t ~ N(alpha m, V) with V = alpha^2 c^2 + sigma^2, so velocity, score,
posterior mean, density and (for one Gaussian) the probability-flow map are closed forms, and an
orthonormal change of basis leaves them so; a mixture weighs its components by their
responsibilities. They are the teachers of the tests, and a mixture centred on the samples of a data
set is an exact teacher for that data (SlimFlow's AnalyticFlow, arXiv 2407.12718). All answer with
the velocity, the one kind from which every other follows without a singular quotient at either end
of a path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond
from genkit.paths import Path, TrigFlow, expand, wide


def _marginal(path: Path, t: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(alpha, alpha', V, V' / 2V) at t, float64, with V = alpha^2 var + sigma^2."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    d_alpha, d_sigma = path.d_alpha(t), path.d_sigma(t)
    marginal = alpha**2 * var + sigma**2
    return alpha, d_alpha, marginal, (alpha * d_alpha * var + sigma * d_sigma) / marginal


class _Analytic(Denoiser):
    """What all share: they follow from `velocity`, `score` and `flow_map`, given by each."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "velocity")

    def velocity(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """E[dx_t/dt | x_t], shaped as x_t (b, ...)."""
        raise NotImplementedError

    def flow_map(self, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
        """x_s on the probability-flow ODE through x_t (b, ...), from times t (b,) to s (b,)."""
        raise NotImplementedError

    def consistency(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The end of the trajectory through x_t, at the path's t_min: x there, not divided by
        alpha(t_min)."""
        return self.flow_map(x_t, t, torch.full_like(t, self.path.t_min), cond)

    def raw(self, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
        return self.velocity(x_t, timestep, cond)

    def mean_velocity(self, x_t: Tensor, t: Tensor, cond: Cond, s: Tensor) -> Tensor:
        """(x_t - x_s) / (t - s) of the exact flow, the velocity where s == t. (Its derivative in t
        alone is the velocity's there; MeanFlow's identity multiplies it by t - s = 0.)"""
        same = t == s
        # The quotient's numerator cancels for close times, hence float64.
        x, now, there = wide(x_t), wide(t), wide(s)
        moved = x - self.flow_map(x, now, there, cond)
        mean = (moved / expand(torch.where(same, 1.0, now - there), x)).to(x_t.dtype)
        return torch.where(expand(same, x_t), self.velocity(x_t, t, cond), mean)


class Gaussian(_Analytic):
    """x_0 ~ N(mean, std^2), independent elements. mean and std: numbers, or shaped as one sample
    without the batch. Times may be one per sample (b,) or per frame (b, f). Takes any cond and
    ignores it."""

    mean: Tensor
    std: Tensor

    def __init__(self, path: Path, mean: Tensor | float, std: Tensor | float) -> None:
        super().__init__(path)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float64))

    def _at(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(x_t - alpha m, alpha, alpha', V, V' / 2V), float64, broadcast to x_t."""
        alpha, d_alpha, var, rate = _marginal(self.path, expand(wide(t), x_t), self.std**2)
        return wide(x_t) - alpha * self.mean, alpha, d_alpha, var, rate

    def velocity(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """alpha' m + (x_t - alpha m) V' / 2V."""
        centred, _, d_alpha, _, rate = self._at(x_t, t)
        return (d_alpha * self.mean + centred * rate).to(x_t.dtype)

    def score(self, x_t: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """d log p_t / dx = -(x_t - alpha m) / V."""
        centred, _, _, var, _ = self._at(x_t, t)
        return (-centred / var).to(x_t.dtype)

    def log_density(self, x_t: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """log p_t(x_t) (b,), in nats, of the marginal at t."""
        centred, _, _, var, _ = self._at(x_t, t)
        elements = centred**2 / var + torch.log(2 * math.pi * var)
        return (-0.5 * elements.flatten(1).sum(-1)).to(x_t.dtype)

    def flow_map(self, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond | None = None) -> Tensor:
        """x_s = alpha_s m + (x_t - alpha_t m) sqrt(V(s) / V(t)), on every path."""
        centred, _, _, var, _ = self._at(x_t, t)
        alpha_s, _, var_s, _ = _marginal(self.path, expand(wide(s), x_t), self.std**2)
        return (alpha_s * self.mean + centred * torch.sqrt(var_s / var)).to(x_t.dtype)

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """n samples x_0 (n, *shape), float64."""
        eps = torch.randn((n, *shape), generator=generator, dtype=torch.float64)
        return self.mean + self.std * eps


class Mixture(_Analytic):
    """x_0 ~ sum_k w_k N(m_k, c_k^2 I).

    means (k, *shape); std a number or (k,); weights (k,), uniform when None; labels (k,) int64 in
    0..C-1, the class of each component. cond["label"] (b,) restricts sample i to the components of
    its class, and the label C means no class, as genkit's networks have it; cond {} does not
    restrict. Times are one per sample (b,). Work is in x_t's dtype: two products of (b, k) with
    (k, d), and where all widths are one number, little besides.
    """

    means: Tensor
    std: Tensor
    log_weights: Tensor

    def __init__(
        self,
        path: Path,
        means: Tensor,
        std: Tensor | float,
        weights: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__(path)
        k = len(means)
        widths = torch.as_tensor(std, dtype=torch.float64)
        shares = (torch.ones(k) if weights is None else weights).double()
        for name, given in (("weights", shares), ("std", widths), ("labels", labels)):
            if given is not None and given.ndim and given.shape != (k,):
                raise ValueError(f"{name} has shape {tuple(given.shape)}; {k} means need ({k},)")
        self.register_buffer("means", means)
        self.register_buffer("std", widths)
        self.register_buffer("log_weights", _log_weights_by_class(shares, labels))

    def _logits(self, x: Tensor, t: Tensor, cond: Cond, path: Path) -> tuple[Tensor, ...]:
        """(l (b, k), row (b, 1), alpha, alpha', V, V' / 2V (b, 1 or k)) for flat x (b, d), with
        l + row = log w_k N(x; alpha m_k, V_k I)."""
        if t.shape != x.shape[:1]:
            raise ValueError(f"t has shape {tuple(t.shape)}; a mixture takes one time per sample")
        alpha, d_alpha, var, rate = (
            each.to(x.dtype) for each in _marginal(path, wide(t)[:, None], self.std**2)
        )
        means, prior = self.means.flatten(1).to(x), self._prior(x, cond)
        squares, own = means.square().sum(-1), x.square().sum(-1, keepdim=True)
        row = -0.5 * (own / var + x.shape[1] * torch.log(2 * math.pi * var))
        if self.std.ndim:
            cross = (x @ means.T) * alpha - 0.5 * alpha**2 * squares
            return prior + row + cross / var, torch.zeros_like(own), alpha, d_alpha, var, rate
        # One width: all that depends on both x and k is one product, the last column being |m|^2.
        left = torch.cat([x * (alpha / var), -0.5 * alpha**2 / var], -1)
        logits = left @ torch.cat([means, squares[:, None]], -1).T
        return logits + prior, row, alpha, d_alpha, var, rate

    def _prior(self, x: Tensor, cond: Cond) -> Tensor:
        if "label" not in cond:
            return self.log_weights[-1].to(x)
        if len(self.log_weights) == 1:
            raise ValueError("this mixture was made without labels, so it takes no cond['label']")
        return self.log_weights[cond["label"]].to(x)

    def velocity(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """sum_k r_k (alpha' m_k + (x_t - alpha m_k) V_k' / 2V_k), r_k the responsibilities."""
        return self._velocity(x_t, t, cond, self.path)

    def _velocity(self, x_t: Tensor, t: Tensor, cond: Cond, path: Path) -> Tensor:
        x = x_t.flatten(1)
        logits, _, alpha, d_alpha, _, rate = self._logits(x, t, cond, path)
        return self._mean(logits, d_alpha - alpha * rate, rate, x).view_as(x_t)

    def _mean(self, logits: Tensor, on_means: Tensor, on_x: Tensor, x: Tensor) -> Tensor:
        """sum_k r_k (a_k m_k + b_k x), the weights being (b, k), or (b, 1) for all components."""
        share, means = torch.softmax(logits, -1), self.means.flatten(1).to(x)
        if on_x.shape[-1] == 1:
            return on_means * (share @ means) + on_x * x
        return (share * on_means) @ means + (share * on_x).sum(-1, keepdim=True) * x

    def score(self, x_t: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """d log p_t / dx = -sum_k r_k (x_t - alpha m_k) / V_k."""
        x = x_t.flatten(1)
        logits, _, alpha, _, var, _ = self._logits(x, t, cond or {}, self.path)
        return self._mean(logits, alpha / var, -1 / var, x).view_as(x_t)

    def log_density(self, x_t: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """log p_t(x_t) (b,), in nats, of the marginal at t."""
        logits, row, *_ = self._logits(x_t.flatten(1), t, cond or {}, self.path)
        return torch.logsumexp(logits, -1) + row[:, 0]

    def responsibilities(self, x_t: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """The posterior of the component given x_t (b, k); rows add up to 1."""
        return torch.softmax(self._logits(x_t.flatten(1), t, cond or {}, self.path)[0], -1)

    def flow_map(
        self, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond | None = None, steps: int = 64
    ) -> Tensor:
        """x_s by the classical Runge-Kutta method of order 4, `steps` steps of 4 evaluations.

        The ODE is solved in TrigFlow's coordinates, uniformly in the noise angle, where it is well
        scaled on every path. No closed form exists; float64 x_t gives about 1e-6 for components a
        few of their widths apart.
        """
        trig, cond = TrigFlow(), cond or {}
        scale, angle = self.path.repath(t, trig)
        scale_s, last = self.path.repath(s, trig)
        h = (last - angle) / steps
        wide_x = expand(scale, x_t) * wide(x_t)

        def f(x: Tensor, time: Tensor) -> Tensor:
            return self._velocity(x, time, cond, trig)

        for i in range(steps):
            now = angle + i * h
            step = expand(h, x_t)
            k_1 = f(wide_x, now)
            k_2 = f(wide_x + 0.5 * step * k_1, now + 0.5 * h)
            k_3 = f(wide_x + 0.5 * step * k_2, now + 0.5 * h)
            k_4 = f(wide_x + step * k_3, now + h)
            wide_x = wide_x + step / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
        return (wide_x / expand(scale_s, x_t)).to(x_t.dtype)

    def draw(
        self, n: int, generator: torch.Generator, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(n samples x_0 (n, *shape) in means' dtype, the component (n,) each came from); label
        (n,): of these classes."""
        if label is None:
            weights = self.log_weights[-1].exp()
            component = torch.multinomial(weights, n, replacement=True, generator=generator)
        else:
            weights = self.log_weights[label].exp()
            component = torch.multinomial(weights, 1, generator=generator)[:, 0]
        centre = self.means[component]
        eps = torch.randn(centre.shape, generator=generator, dtype=centre.dtype)
        std = self.std.expand(len(self.means))[component].to(centre.dtype)
        return centre + expand(std, centre) * eps, component


def fourier_basis(size: int) -> tuple[Tensor, Tensor]:
    """(rows (size, size), orthonormal, float64: constant, cos and sin of each frequency, and the
    alternating one; their frequencies (size,)). ValueError for an odd size."""
    if size < 2 or size % 2:
        raise ValueError(f"size is {size}; give an even number of pixels")
    place, waves = torch.arange(size, dtype=torch.float64), torch.arange(1, size // 2)
    angle = 2 * math.pi * (place * waves[:, None]) / size
    both = torch.stack([angle.cos(), angle.sin()], 1).flatten(0, 1) * math.sqrt(2)
    ends = torch.ones(size, dtype=torch.float64), (-1.0) ** place
    rows = torch.cat([ends[0][None], both, ends[1][None]]) / math.sqrt(size)
    frequencies = torch.cat([torch.tensor([0]), waves.repeat_interleave(2), torch.tensor([size])])
    frequencies[-1] = size // 2
    return rows, frequencies.double()


class Field(_Analytic):
    """A Gaussian field: x_0 = Q^T z Q with orthonormal Q (size, size) and independent elements
    z ~ N(0, std^2), std (1, size, size); stationary where `fourier_basis` is Q and std depends on
    the two frequencies alone. Takes any cond and ignores it."""

    basis: Tensor

    def __init__(self, path: Path, basis: Tensor, std: Tensor) -> None:
        super().__init__(path)
        self.register_buffer("basis", basis)
        self.waves = Gaussian(path, 0.0, std)

    def coefficients(self, x: Tensor) -> Tensor:
        """z of x (b, 1, size, size)."""
        basis = self.basis.to(x.dtype)
        return basis @ x @ basis.T

    def _pixels(self, z: Tensor) -> Tensor:
        basis = self.basis.to(z.dtype)
        return basis.T @ z @ basis

    def velocity(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The Gaussian's own, of the coefficients."""
        return self._pixels(self.waves.velocity(self.coefficients(x_t), t, cond))

    def score(self, x_t: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """The Gaussian's own, of the coefficients."""
        return self._pixels(self.waves.score(self.coefficients(x_t), t))

    def log_density(self, x_t: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """log p_t(x_t) (b,), in nats; a rotation has the determinant 1."""
        return self.waves.log_density(self.coefficients(x_t), t)

    def flow_map(self, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond | None = None) -> Tensor:
        """The Gaussian's own, of the coefficients."""
        return self._pixels(self.waves.flow_map(self.coefficients(x_t), t, s))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n samples x_0 (n, 1, size, size), float32."""
        shape = tuple(self.waves.std.shape)
        return self._pixels(self.waves.draw(n, shape, generator)).float()


class ByClass(_Analytic):
    """One density for each class: cond["label"] (b,) says whose; len(parts) is all of them alike
    weighed. Every part is asked for every row."""

    def __init__(self, parts: Sequence[_Analytic]) -> None:
        super().__init__(parts[0].path)
        self.parts = nn.ModuleList(parts)

    def _logits(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """(parts, b) log p_t(x_t) of those that the label allows, -inf for the others."""
        label, count = cond["label"], len(self.parts)
        allowed = label == torch.arange(count, device=label.device)[:, None]
        logits = torch.where(allowed, 0.0, -torch.inf).to(x_t.dtype)
        if bool((label == count).any()):
            known = torch.stack([part.log_density(x_t, t, {}) for part in self.parts])  # type: ignore[operator]
            logits = torch.where(label == count, known, logits)
        return logits

    def velocity(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """sum_k r_k v_k, r_k the posterior of the class."""
        share = torch.softmax(self._logits(x_t, t, cond), 0)
        parts = (part.velocity(x_t, t, {}) for part in self.parts)  # type: ignore[operator]
        return sum(expand(r, x_t) * v for r, v in zip(share, parts, strict=True))  # type: ignore[return-value]


def _log_weights_by_class(weights: Tensor, labels: Tensor | None) -> Tensor:
    """(C + 1, k) log weights given the class, -inf outside it; the last row knows no class."""
    log_weights = torch.log(weights / weights.sum())
    if labels is None:
        return log_weights[None]
    classes = torch.arange(int(labels.max()) + 1, device=labels.device)
    inside = torch.where(labels == classes[:, None], log_weights, -torch.inf)
    if (empty := ~inside.isfinite().any(-1)).any():
        raise ValueError(
            f"no component has the label {int(empty.nonzero()[0])}; number them 0..C-1"
        )
    return torch.cat([inside - torch.logsumexp(inside, -1, keepdim=True), log_weights[None]])
