"""The one sampling loop: trainers, pipelines and backward simulation all run this.

A student's sampler is plain data (`Sampler`); `hub` turns it into a diffusers scheduler before
training starts, and that scheduler object is run here and leaves with the student.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genkit.paths import Path

# (x, timestep), and for a network of two times the timestep of the next level too, -> raw output.
Evaluate = Callable[..., Tensor]
TCD_ETA = 0.3  # what diffusers' TCDScheduler.step takes when it is told nothing
Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class Sampler:
    """How a network samples, as plain data.

    steps: evaluations by default. times: noise levels t of a fixed grid, one per evaluation, first
    the start (None: the path's own `grid`, so any number of steps can be asked for).
    network_times: what the network is told instead of `times`, where they differ. stochastic:
    re-noise the predicted x_0 with fresh noise between evaluations (else follow the ODE). eta: of a
    stochastic sampler, 1 for that; below, a step follows the ODE to (1 - eta) of the next time and
    noise brings it back (TCD, arXiv 2402.19159, alg. 4). order: of the multistep ODE solver.
    start_scale: factor on the starting noise. opening: of a sequence's first frame, the evaluations
    where that is more; it has no frame before it, and all is decided in it.
    """

    steps: int
    times: tuple[float, ...] | None = None
    network_times: tuple[float, ...] | None = None
    stochastic: bool = False
    order: int = 1
    start_scale: float = 1.0
    eta: float = 1.0
    opening: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a sampler needs at least one evaluation")
        if self.opening < 1:
            raise ValueError(f"opening is {self.opening}; give at least 1")
        if self.opening > 1 and (self.times is not None or self.network_times is not None):
            raise ValueError(
                f"an opening of {self.opening} steps has no times; leave times out, or opening"
            )
        if not 0 < self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; give more than 0, at most 1")
        if self.times is not None and len(self.times) != self.steps:
            raise ValueError(f"{len(self.times)} times for {self.steps} steps; give one per step")
        if self.network_times is not None and len(self.network_times) != self.steps:
            raise ValueError(
                f"{len(self.network_times)} network_times for {self.steps} steps; one per step"
            )

    @property
    def first(self) -> Sampler:
        """The sampler of a sequence's first frame."""
        return replace(self, steps=max(self.steps, self.opening))

    @property
    def stops(self) -> int:
        """As many numbers of an evaluation, of the first frame and of the others: modulo the steps
        of either, each of its evaluations is as many of them."""
        return math.lcm(self.steps, self.first.steps)

    def grid(self, path: Path) -> Tensor:
        """The (steps,) noise levels t of the evaluations, float64, decreasing."""
        if self.times is not None:
            return torch.tensor(self.times, dtype=torch.float64)
        return path.grid(self.steps)


def one_level(path: Path, ratio: float) -> Sampler:
    """One evaluation at the noise level sigma / alpha = `ratio`, of noise with exactly its sigma:
    where score identity methods start (SiD, arXiv 2404.04057, sec. 4)."""
    t = path.t_of_ratio(torch.tensor(ratio, dtype=torch.float64))
    scale = path.sigma(t) / path.start_scale(t)
    return Sampler(steps=1, times=(float(t),), start_scale=float(scale))


def opening_steps(scheduler: Any, steps: int | None) -> int | None:
    """Evaluations of a sequence's first frame where the others take `steps`; diffusers' own
    schedulers know no such difference."""
    opening = int(scheduler.config.get("opening", 1))
    return steps if opening == 1 else max(steps or scheduler.config["steps"], opening)


def step_arguments(scheduler: Any, generator: Generators) -> dict[str, Any]:
    """What this scheduler's `step` takes beyond output, timestep and sample."""
    taken = inspect.signature(scheduler.step).parameters
    return {"generator": generator} if "generator" in taken else {}


def starting_scale(scheduler: Any) -> float:
    """What unit noise is multiplied by at the start; diffusers' flow schedulers name none: 1."""
    return float(getattr(scheduler, "init_noise_sigma", 1.0))


def network_times(scheduler: Any, i: int, x: Tensor, two_time: bool) -> tuple[Tensor, ...]:
    """What a network is told at evaluation i for x (b, ...): its timestep (b,), and where it takes
    a second time, that of the next level, which is 0 after the last."""
    # At least float32: bfloat16 does not hold whole timesteps, and stock loops do not round.
    dtype = torch.promote_types(x.dtype, torch.float32)
    now = scheduler.timesteps[i].to(dtype).expand(x.shape[0])
    if not two_time:
        return (now,)
    last = i + 1 == len(scheduler.timesteps)
    then = scheduler.timesteps[i + 1].to(dtype).expand(x.shape[0]) if not last else now * 0
    return now, then


def sample(
    evaluate: Evaluate,
    scheduler: Any,
    noise: Tensor,
    steps: int | None = None,
    generator: Generators = None,
    stop: int | None = None,
    callback: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    two_time: bool = False,
) -> Tensor:
    """Run `scheduler` from unit Gaussian `noise` (b, ...) and return the final x, same shape.

    evaluate(x, timestep): the network's raw output for x (b, ...) at network time (b,). two_time:
    it is evaluate(x, timestep, next timestep), for a network of mean velocities between the two.
    steps: None for a scheduler whose own config holds its number of steps.
    stop: return x just before evaluation `stop` instead (backward simulation).
    callback(i, timestep, x) -> x runs after every step.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    extra = step_arguments(scheduler, generator)
    x = noise * starting_scale(scheduler)
    for i, timestep in enumerate(scheduler.timesteps):
        if i == stop:
            return x
        told = network_times(scheduler, i, x, two_time)
        output = evaluate(scheduler.scale_model_input(x, timestep), *told)
        # Autocast networks answer in bfloat16, and stock schedulers would round x to that.
        output = output.to(torch.promote_types(output.dtype, x.dtype))
        x = scheduler.step(output, timestep, x, return_dict=False, **extra)[0]
        if callback is not None:
            x = callback(i, timestep, x)
    return x
