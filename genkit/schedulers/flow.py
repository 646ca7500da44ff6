"""Deterministic sampling on any path, in the coordinates where it is a straight-line flow.

With z = x / (alpha + sigma) and tau = sigma / (alpha + sigma), every path is rectified flow:
z = (1 - tau) x_0 + tau eps and dz/dtau = eps - x_0. Order 1 is Euler there, which is DDIM (Song et
al. 2020, arXiv 2010.02502, eq. 12 with eta = 0) on every path. Orders 2 and 3 are Adams-Bashforth
of variable step on that velocity: the multistep idea of DEIS (Zhang & Chen 2022, 2204.13902), whose
own polynomials are in other variables; the order grows 1, 2, 3 over the first steps.
diffusers' FlowMatchEuler cannot hold a grid and its DEIS never reaches the data on flow sigmas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from torch import Tensor

from genkit.schedulers.grid import PathGrid


def adams_bashforth(nodes: Tensor, end: Tensor) -> Tensor:
    """Weights w, (k,), with sum_j w_j f(nodes_j) = the integral of f from nodes_0 to `end`, for
    every polynomial f of degree < k; nodes newest first, float64."""
    k = torch.arange(len(nodes), dtype=torch.float64)
    # In units of the step from the newest node, so that the system is well conditioned.
    h = end - nodes[0]
    powers = ((nodes - nodes[0]) / h)[None] ** k[:, None]
    return h * torch.linalg.solve(powers, 1 / (k + 1))


class FlowScheduler(PathGrid, SchedulerMixin, ConfigMixin):
    """Deterministic sampling with the trained grid in its config; it ends at x_0 (sigma = 0).

    path: `Path.config()`. prediction_type: the kind the network returns. time_scale: network time
    = t times it. steps: the trained number. times: noise levels of a fixed grid, None for one
    uniform on the path's clock. network_times: what the network is told instead, in the same unit.
    start_scale: factor on the starting noise. sigma_data: see `PathGrid`. opening: see
    `Sampler`. solver_order: 1 to 3.
    """

    @register_to_config
    def __init__(
        self,
        path: dict[str, Any],
        prediction_type: str = "velocity",
        time_scale: float = 1.0,
        steps: int = 1,
        times: Sequence[float] | None = None,
        network_times: Sequence[float] | None = None,
        start_scale: float = 1.0,
        sigma_data: float | None = None,
        opening: int = 1,
        solver_order: int = 1,
    ) -> None:
        if solver_order not in (1, 2, 3):
            raise ValueError(f"solver_order is {solver_order}; choose 1, 2 or 3")
        self._velocities: list[Tensor] = []
        self.prepare(solver_order)

    def plan(self) -> None:
        """Step i is a x + b output + sum_j c_j v_j over the earlier velocities, newest first.

        From z' = z + sum_j w_j v_j with v = p x + q output: the newest velocity's share is folded
        into a and b in float64, where its cancellation against x / (alpha + sigma) costs nothing.
        """
        on_eps, on_x_0 = self.affine("eps"), self.affine("x_0")
        p, q = on_eps[0] - on_x_0[0], on_eps[1] - on_x_0[1]
        self._on_x, self._on_output = p.tolist(), q.tolist()
        self._x_0 = [weights.tolist() for weights in on_x_0]
        alpha, sigma = self.path.alpha(self.levels), self.path.sigma(self.levels)
        norm = torch.cat([alpha + sigma, alpha.new_ones(1)])
        tau = torch.cat([sigma / (alpha + sigma), alpha.new_zeros(1)])
        self._steps: list[tuple[float, float, list[float]]] = []
        for i in range(len(self.levels)):
            first = min(i, max(self.begin_index or 0, i + 1 - self.config.solver_order))
            weights = norm[i + 1] * adams_bashforth(tau[first : i + 1].flip(0), tau[i + 1])
            a = norm[i + 1] / norm[i] + weights[0] * p[i]
            self._steps.append((float(a), float(weights[0] * q[i]), weights[1:].tolist()))

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """As `PathGrid.set_timesteps`; forgets the velocities of the sampling before."""
        super().set_timesteps(num_inference_steps, device)
        self._velocities = []

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: Any = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor, Tensor]:
        """x at the next level; x_0 after the last. The tuple form adds the predicted x_0.

        generator: not needed; DDPMPipeline gives one to any scheduler.
        """
        i = self._advance()
        wide = torch.promote_types(sample.dtype, torch.float32)
        x, output = sample.to(wide), model_output.to(wide)
        on_x, on_output, on_earlier = self._steps[i]
        new = on_x * x + on_output * output
        for weight, velocity in zip(on_earlier, self._velocities, strict=True):
            new = new + weight * velocity
        if self.config.solver_order > 1:
            velocity = self._on_x[i] * x + self._on_output[i] * output
            self._velocities = [velocity, *self._velocities][: self.config.solver_order - 1]
        new = new.to(sample.dtype)
        if return_dict:
            return SchedulerOutput(prev_sample=new)
        return new, (self._x_0[0][i] * x + self._x_0[1][i] * output).to(sample.dtype)
