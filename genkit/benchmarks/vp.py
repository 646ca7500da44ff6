"""A problem on discrete VP, whose students predict eps: for methods that take nothing else.

No other network is trained for it, so that all share one start: a velocity on rectified flow is
read as eps at the same noise angle, x' = x / (alpha + sigma), t' = sigma / (alpha + sigma) and
eps = x' + (1 - t') v, without a quotient.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import Tensor, nn

from genkit.benchmarks.problem import TIME_SCALE, Problem, class_of
from genkit.denoisers.base import Denoiser
from genkit.denoisers.calls import class_conditional
from genkit.guidance import Cond
from genkit.paths import DiscreteVP, expand

WORD = "vp"  # after a method's colon: there, whatever paths it takes
PATH = DiscreteVP()


def suited(problem: Problem, name: str) -> Problem:
    """The problem itself, or on discrete VP for a method that needs it there."""
    cls = class_of(name)
    here = problem.density.path.name in cls.paths and problem.kind in cls.kinds
    return problem if here and name.partition(":")[2] != WORD else on_vp(problem)


def on_vp(problem: Problem) -> Problem:
    """The same density and networks, on discrete VP."""
    density = copy.deepcopy(problem.density)
    for each in density.modules():
        if isinstance(each, Denoiser):
            each.path = PATH
    told = {"call": as_eps, "kind": "eps", "time_scale": 1.0, "_made": {}}
    return replace(problem, density=density, **told)


def as_eps(
    network: nn.Module, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """eps (b, ...) at an index of DiscreteVP, of an MLP that predicts rectified velocities."""
    assert s is None, "mean velocities are of rectified flow"
    scale, t = PATH.flow_coordinates(timestep)
    x, t = x_t / expand(scale.to(x_t.dtype), x_t), t.to(x_t.dtype)
    return x + expand(1 - t, x_t) * class_conditional(network, x, t * TIME_SCALE, cond)
