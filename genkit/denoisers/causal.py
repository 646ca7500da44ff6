"""Denoiser of a causal network: samples are sequences of frames, made one after the other.

Every frame has its own noise level, t (b, f). Where all frames of x_t are noised copies of known
ones, `given` lets each frame see the others clean, as a roll-out does (teacher forcing): only then
is the denoised frame, or its place on an ODE, a function of its own x_t alone. A student judged on
its own roll-outs is given those as the past (self-forcing, arXiv 2506.08009), and the divergence of
clips is the sum of the frames' own given it.
Past frames are seen a little noised (`context_noise` of the network's config), against drift, as in
arXiv 2407.01392. Their noise is the frame's own starting noise turned by half a circle: unit
Gaussian, at no pixel what the frame was made of, and the same for trainer, pipeline and any order
of evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import ENCODERS, network_call
from genkit.guidance import Cond
from genkit.paths import Kind, Path
from genkit.sampling import Generators, Sampler, network_times, opening_steps, sample

# Classes of networks that are called with a cache of past frames.
CAUSAL = ("CausalVideoTransformer",)


class CausalDenoiser(NetworkDenoiser):
    """A network called with timesteps (b, f), and with cond["cache"] or cond["past"] as the past.

    Conditions are one per frame, (b, f, ...).
    """

    network: Any
    levels = 2

    def raw(self, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
        if timestep.ndim == 1:
            timestep = timestep[:, None].expand(x_t.shape[:2])
        return super().raw(x_t, timestep, cond, s)

    def given(self, x_0: Tensor, cond: Cond, eps: Tensor) -> dict[str, Tensor]:
        """cond, with the frames x_0 (b, f, ...) as what later ones see; a single frame has none."""
        if x_0.shape[1] == 1:
            return dict(cond)
        past = self.context(x_0.detach(), eps)
        return {**cond, "past": past, "past_timestep": self._context_time(past)}

    def context(self, x_0: Tensor, eps: Tensor) -> Tensor:
        """Frames (b, f, ..., h, w) as later ones see them; eps is what they were made from."""
        t = self._context_time(x_0) / self.time_scale
        return self.path.add_noise(x_0, eps.flip(-2, -1), t)

    def _context_time(self, x: Tensor) -> Tensor:
        """Network time (b, f) of a past frame."""
        u = torch.tensor(float(self.network.config["context_noise"]), dtype=torch.float64)
        t = self.path.time(u).to(x.dtype) * self.time_scale
        return t.to(x.device).expand(x.shape[:2])

    def rollout(self, batch: int, slack: int = 0) -> Rollout:
        """The beginning of `batch` clips, of which the last `slack` frames may be taken back."""
        return Rollout(self, batch, slack)

    def sample(
        self,
        noise: Tensor,
        cond: Cond,
        scheduler: Any,
        steps: int | None = None,
        generator: Generators = None,
        callback: Callable[[int, Tensor, Tensor], Tensor] | None = None,
        clips: Rollout | None = None,
    ) -> Tensor:
        """Roll-outs (b, f, ...) from noise (b, f, ...): frame by frame, each by `scheduler`, behind
        what there is of `clips`.

        ValueError for a callback after every step, which a whole roll-out has none of.
        """
        if callback is not None:
            raise ValueError(
                "a roll-out is made frame by frame, and has no points on the way of the whole; "
                "learn its end alone (steps 1)"
            )
        clips, frames = clips or self.rollout(len(noise)), []
        for i in range(noise.shape[1]):
            eps, now = noise[:, i : i + 1], frame_of(cond, i)
            frames.append(clips.frame(eps, now, scheduler, steps, generator))
            clips.write(frames[-1], eps, now)
        return torch.cat(frames, 1)

    def simulate(
        self,
        noise: Tensor,
        cond: Cond,
        scheduler: Any,
        sampler: Sampler,
        stop: int,
        generator: Generators = None,
    ) -> Tensor:
        """A roll-out whose frames are the x_0 predicted at evaluation `stop` (modulo the steps of a
        frame), each with gradient through that evaluation alone; the past of a frame carries none
        (arXiv 2506.08009, alg. 1)."""
        clips, frames = self.rollout(len(noise)), []
        for i in range(noise.shape[1]):
            eps, now = noise[:, i : i + 1], frame_of(cond, i)
            own = sampler if i else sampler.first
            at = stop % own.steps
            with torch.no_grad():
                x = clips.frame(eps, now, scheduler, own.steps, generator, at)
            t = own.grid(self.path)[at].to(x.device, x.dtype).expand(len(x))
            told = network_times(scheduler, at, x, False)[0]
            scaled = scheduler.scale_model_input(x, scheduler.timesteps[at])
            value = self.raw(scaled, told, clips.seen(now))
            frames.append(self.path.convert(value, x, t, self.kind, "x_0"))
            clips.write(frames[-1].detach(), eps, now)
        return torch.cat(frames, 1)


class Rollout:
    """Clips in the making: what there has been is in `cache`, and can be taken back."""

    def __init__(self, denoiser: CausalDenoiser, batch: int, slack: int = 0) -> None:
        self.denoiser = denoiser
        self.cache = denoiser.network.cache(batch, slack)

    @property
    def length(self) -> int:
        """Frames there have been."""
        return self.cache.length

    def seen(self, cond: Cond) -> dict[str, Any]:
        """cond (b, 1, ...) of the next frame, with all that it sees."""
        return {**cond, "cache": self.cache}

    def frame(
        self,
        eps: Tensor,
        cond: Cond,
        scheduler: Any,
        steps: int | None = None,
        generator: Generators = None,
        stop: int | None = None,
    ) -> Tensor:
        """The next frame (b, 1, ...) from unit noise of that shape; nothing is kept of it. The
        first takes the scheduler's `opening` steps. stop: x just before that evaluation instead."""
        seen = self.seen(cond)
        if self.length == 0:
            steps = opening_steps(scheduler, steps)
        return sample(
            lambda x, t: self.denoiser.raw(x, t, seen), scheduler, eps, steps, generator, stop
        )

    def write(self, x_0: Tensor, eps: Tensor, cond: Cond) -> None:
        """Let x_0 (b, k, ...) be the next frames there have been."""
        denoiser = self.denoiser
        with torch.no_grad():
            past = denoiser.context(x_0, eps)
            denoiser.raw(past, denoiser._context_time(past), self.seen(cond))
            self.cache.commit(x_0.shape[1])

    def begin(self, x_0: Tensor, eps: Tensor, cond: Cond) -> None:
        """Let frames x_0 (b, k, ...) be the first, written one by one as a roll-out's are."""
        for i in range(x_0.shape[1]):
            self.write(x_0[:, i : i + 1], eps[:, i : i + 1], frame_of(cond, i))

    def back(self, length: int) -> None:
        """Take back all frames but the first `length`."""
        self.cache.back(length)


def network_denoiser(
    network: Any, path: Path, kind: Kind, time_scale: float, two_time: bool = False
) -> NetworkDenoiser:
    """A network of a known class as a Denoiser: causal where it keeps a cache of what is past, with
    its condition encoder where it trains one."""
    call, owner = network_call(network), type(network).__name__
    made = CausalDenoiser if owner in CAUSAL else NetworkDenoiser
    return made(network, call, path, kind, time_scale, two_time, ENCODERS.get(owner))


def frame_of(cond: Mapping[str, Tensor], i: int) -> dict[str, Tensor]:
    """The conditions of frame i, (b, 1, ...)."""
    return {name: value[:, i : i + 1] for name, value in cond.items()}
