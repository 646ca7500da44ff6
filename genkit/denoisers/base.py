"""Denoiser: a network on a Path, asked for any prediction kind.

Teacher, student and fake score are all Denoisers; guidance, preconditioning (`preconditioned`) and
change of path are Denoisers around Denoisers, and the network inside knows none of it. A Denoiser
never sets no_grad, train or eval by itself: score identity methods need gradients through frozen
networks. Guidance: arXiv 2207.12598. Change of path: genkit.paths.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genkit.guidance import Cond, both, guide
from genkit.paths import Kind, Path, expand
from genkit.sampling import Generators, Sampler, network_times, sample

Backend = Literal["func", "difference", "kernel"]
AnyKind = Kind | Literal["mean_velocity"]
Call = Callable[..., Tensor]
Encoder = Callable[..., tuple[dict[str, Tensor], dict[str, Tensor]]]


class Denoiser(nn.Module):
    """A network on a path. Subclasses give `raw`, one evaluation in the network's own `kind`.

    path: the probability path. kind: the kind `raw` returns. time_scale: network time = t times it.
    two_time: the network takes a second time s, and its raw output is the mean velocity from t to s
    (at s = t, its velocity), or what stands for it in another kind. sigma_data: where the sampling
    loop evaluates a bare network, whose preconditioning the scheduler then applies; else None.
    levels: 1 where x_t has a time for each sample, (b,), 2 where each frame has its own, (b, f).
    """

    sigma_data: float | None = None
    path: Path
    kind: Kind
    levels: int = 1

    def __init__(
        self, path: Path, kind: Kind, time_scale: float = 1.0, two_time: bool = False
    ) -> None:
        super().__init__()
        self.path, self.kind, self.time_scale, self.two_time = path, kind, time_scale, two_time

    @abstractmethod
    def raw(self, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
        """The network's own output for x_t (b, ...) at network time `timestep` (b,) or (b, f);
        s in network time too."""

    def predict(
        self, x_t: Tensor, t: Tensor, cond: Cond, kind: AnyKind, s: Tensor | None = None
    ) -> Tensor:
        """The prediction of `kind` at x_t and path time t, differentiable in x_t, t and s.

        kind "mean_velocity" takes s (x_s = x_t - (t - s) u); every other kind takes none.
        """
        if (kind == "mean_velocity") != (s is not None):
            raise ValueError("give s exactly when kind is 'mean_velocity'")
        if kind == "mean_velocity":
            assert s is not None
            return self.mean_velocity(x_t, t, cond, s)
        second = t * self.time_scale if self.two_time else None
        value = self.raw(x_t, t * self.time_scale, cond, second)
        return self.path.convert(value, x_t, t, self.kind, kind)

    @property
    def unguided(self) -> Denoiser:
        """Itself, without the guidance around it where there is one."""
        return self

    def given(self, x_0: Tensor, cond: Cond, eps: Tensor) -> Cond:
        """cond, with what a noised part of x_0 may know of the others; eps: this batch's noise."""
        return cond

    def mean_velocity(self, x_t: Tensor, t: Tensor, cond: Cond, s: Tensor) -> Tensor:
        """u(x_t, t, s) of a two-time network (MeanFlow, arXiv 2505.13447, eq. 3): its output, read
        as a velocity at t whatever its kind."""
        if not self.two_time:
            raise ValueError(
                f"{type(self).__name__} has one time input; mean_velocity needs a network with a "
                "second one (two_time=True in its config)"
            )
        value = self.raw(x_t, t * self.time_scale, cond, s * self.time_scale)
        return self.path.convert(value, x_t, t, self.kind, "velocity")

    def jvp(
        self,
        x_t: Tensor,
        t: Tensor,
        cond: Cond,
        kind: AnyKind,
        dx: Tensor,
        dt: Tensor,
        s: Tensor | None = None,
        ds: Tensor | None = None,
        backend: Backend = "func",
    ) -> tuple[Tensor, Tensor]:
        """(prediction, its derivative along (dx, dt, ds)).

        "func": torch.func.jvp on torch's math attention, exact. "kernel": the same, with the
        network's own attention, which must define a forward derivative. "difference": central
        differences of step 1e-3 (1e-4 in float64) along the direction, for networks without one.
        """

        def f(x: Tensor, time: Tensor, *second: Tensor) -> Tensor:
            return self.predict(x, time, cond, kind, *second)

        points = (x_t, t) if s is None else (x_t, t, s)
        moves = (dx, dt)
        if s is not None:
            moves = (dx, dt, torch.zeros_like(s) if ds is None else ds)
        if backend == "difference":
            return _central_difference(
                f, points, moves, 1e-3 if x_t.dtype != torch.double else 1e-4
            )
        if backend == "kernel":
            value, tangent = torch.func.jvp(f, points, moves)[:2]
            return value, tangent
        if backend == "func":
            with sdpa_kernel(SDPBackend.MATH):
                value, tangent = torch.func.jvp(f, points, moves)[:2]
            return value, tangent
        raise ValueError(f"unknown jvp backend {backend!r}; choose func, difference or kernel")

    def trace(
        self,
        x_t: Tensor,
        t: Tensor,
        cond: Cond,
        kind: AnyKind,
        names: Sequence[str],
        until: str | None = None,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """A prediction and the outputs of the named submodules, from one forward, by hooks.

        Features come as (b, tokens, d). until: stop after this submodule; the prediction is then
        None. ValueError for a name the network does not have.
        """
        modules = dict(self.named_modules())
        wanted = [*names, until] if until and until not in names else list(names)
        unknown = [name for name in wanted if name not in modules]
        if unknown:
            raise ValueError(
                f"no submodule {unknown[0]!r} to take features from; this network has: "
                f"{', '.join(list(modules)[1:12])}, ..."
            )
        features: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                features[name] = _tokens(output[0] if isinstance(output, tuple) else output)
                if name == until:
                    raise _Reached

            return hook

        handles = [modules[name].register_forward_hook(keep(name)) for name in wanted]
        try:
            prediction = self.predict(x_t, t, cond, kind)
        except _Reached:
            prediction = None
        finally:
            for handle in handles:
                handle.remove()
        return prediction, {name: features[name] for name in names}

    def ode_step(
        self, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, solver: Literal["euler", "heun"]
    ) -> Tensor:
        """x_s from x_t along the probability-flow ODE, one step of an order 1 or 2 solver.

        The step is taken in rectified-flow coordinates, x / (alpha + sigma) at time
        sigma / (alpha + sigma), which are finite on every path; Euler there is DDIM (arXiv
        2010.02502, eq. 12) on every path. Heun costs two evaluations.
        """
        (scale_t, flow_t), (scale_s, flow_s) = map(self.path.flow_coordinates, (t, s))
        step = expand((flow_s - flow_t).to(x_t.dtype), x_t)
        scale_t, scale_s = (expand(c.to(x_t.dtype), x_t) for c in (scale_t, scale_s))
        velocity = self._flow_velocity(x_t, t, cond)
        x_s = scale_s * (x_t / scale_t + step * velocity)
        if solver == "euler":
            return x_s
        if solver != "heun":
            raise ValueError(f"unknown solver {solver!r}; choose euler or heun")
        there = self._flow_velocity(x_s, s, cond)
        if self.kind == "x_0":
            # Its velocity is 0 / 0 at sigma = 0: the last step is Euler's (EDM, alg. 1).
            there = torch.where(expand(self.path.sigma(s) > 0, x_s), there, velocity)
        velocity = (velocity + there) / 2
        return scale_s * (x_t / scale_t + step * velocity)

    def _flow_velocity(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        value = self.raw(
            x_t, t * self.time_scale, cond, t * self.time_scale if self.two_time else None
        )
        x_0 = self.path.convert(value, x_t, t, self.kind, "x_0")
        return self.path.convert(value, x_t, t, self.kind, "eps") - x_0

    def condition(
        self, cond: Cond, x_0: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(what the network is conditioned on, {name: auxiliary loss per sample (b,)}) of a batch's
        own conditions, by the condition encoder that trains with the network; where there is none,
        the conditions themselves, and no losses. x_0, mask: the data they belong to, in training;
        without it there are no losses."""
        return dict(cond), {}

    def evaluate(
        self, x: Tensor, timestep: Tensor, cond: Cond, following: Tensor | None = None
    ) -> Tensor:
        """`raw` as the sampling loop asks for it: a two-time network is told the next level too,
        and a preconditioned one is given what its scheduler made of x and time."""
        return self.raw(x, timestep, cond, following)

    def answered(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The x_0 that an output of `evaluate` means at x and path time t."""
        return self.path.convert(output, x, t, self.kind, "x_0")

    def sample(
        self,
        noise: Tensor,
        cond: Cond,
        scheduler: Any,
        steps: int | None = None,
        generator: Generators = None,
        callback: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Samples of `scheduler` from unit noise (b, ...), `sampling.sample` with this network."""

        told, _ = self.condition(cond)

        def evaluate(x: Tensor, t: Tensor, *s: Tensor) -> Tensor:
            return self.evaluate(x, t, told, *s)

        return sample(
            evaluate, scheduler, noise, steps, generator, None, callback, two_time=self.two_time
        )

    def simulate(
        self,
        noise: Tensor,
        cond: Cond,
        scheduler: Any,
        sampler: Sampler,
        stop: int,
        generator: Generators = None,
    ) -> Tensor:
        """Backward simulation: the x_0 predicted at evaluation `stop` of the student's own sampler.

        The evaluations before it run without gradient (DMD2, arXiv 2405.14867, sec. 4.5); the
        gradient flows through evaluation `stop` alone.
        """
        with torch.no_grad():
            x = sample(
                lambda x, t, *s: self.evaluate(x, t, cond, *s),
                scheduler,
                noise,
                sampler.steps,
                generator,
                stop,
                two_time=self.two_time,
            )
        t = sampler.grid(self.path)[stop].to(x.device, x.dtype).expand(x.shape[0])
        now, *then = network_times(scheduler, stop, x, self.two_time)
        scaled = scheduler.scale_model_input(x, scheduler.timesteps[stop])
        value = self.evaluate(scaled, now, cond, *then)
        return self.answered(value, x, t)


class _Reached(Exception):
    """Raised by a hook to end a forward early."""


def _tokens(output: Tensor) -> Tensor:
    """(b, d), (b, tokens, d) or (b, c, h, w, ...) as (b, tokens, d)."""
    if output.ndim == 2:
        return output[:, None]
    if output.ndim == 3:
        return output
    return output.flatten(2).transpose(1, 2)


def _central_difference(
    f: Callable[..., Tensor], points: tuple[Tensor, ...], moves: tuple[Tensor, ...], h: float
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        ahead = f(*(p + h * m for p, m in zip(points, moves, strict=True)))
        behind = f(*(p - h * m for p, m in zip(points, moves, strict=True)))
    return f(*points), (ahead - behind) / (2 * h)


class NetworkDenoiser(Denoiser):
    """Any network as a Denoiser; `call(network, x, timestep, cond, s)` knows its signature, and
    `encoder(network, cond, x_0, mask)` its condition encoder's, where it has one."""

    def __init__(
        self,
        network: nn.Module,
        call: Call,
        path: Path,
        kind: Kind,
        time_scale: float = 1.0,
        two_time: bool = False,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__(path, kind, time_scale, two_time)
        self.network, self.call, self.encoder = network, call, encoder

    def raw(self, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
        return self.call(self.network, x_t, timestep, cond, s)

    def condition(
        self, cond: Cond, x_0: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return (
            (dict(cond), {})
            if self.encoder is None
            else self.encoder(self.network, cond, x_0, mask)
        )


class Around(Denoiser):
    """A Denoiser around another one, the base of such."""

    def __init__(self, inner: Denoiser, path: Path | None = None, kind: Kind | None = None) -> None:
        super().__init__(path or inner.path, kind or inner.kind, inner.time_scale, inner.two_time)
        self.inner, self.levels = inner, inner.levels

    def given(self, x_0: Tensor, cond: Cond, eps: Tensor) -> Cond:
        return self.inner.given(x_0, cond, eps)

    def condition(
        self, cond: Cond, x_0: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.inner.condition(cond, x_0, mask)


class Guided(Around):
    """Classifier-free guidance uncond + w (cond - uncond), both halves in one doubled batch.

    uncond: the conditions of no condition, batch 1. w: a number, or one per sample (b,).
    """

    def __init__(self, inner: Denoiser, w: float | Tensor, uncond: Cond) -> None:
        super().__init__(inner)
        self.w, self.uncond, self.sigma_data = w, dict(uncond), inner.sigma_data

    @property
    def unguided(self) -> Denoiser:
        return self.inner

    def raw(self, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
        return self._guided(self.inner.raw, x_t, timestep, cond, s)

    def evaluate(
        self, x: Tensor, timestep: Tensor, cond: Cond, following: Tensor | None = None
    ) -> Tensor:
        """As the denoiser within is evaluated."""
        return self._guided(self.inner.evaluate, x, timestep, cond, following)

    def answered(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """As the denoiser within reads it."""
        return self.inner.answered(output, x, t)

    def _guided(
        self, call: Call, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None
    ) -> Tensor:
        doubled = both(cond, self.uncond, x_t.shape[0])
        twice = None if s is None else torch.cat([s, s])
        value = call(torch.cat([x_t, x_t]), torch.cat([timestep, timestep]), doubled, twice)
        uncond_value, cond_value = value.chunk(2)
        return guide(cond_value, uncond_value, self.w)
