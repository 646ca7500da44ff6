"""Multistep consistency sampling on any path: predict x_0, re-noise to the next level, repeat.

Consistency models (Song et al. 2023, arXiv 2303.01469, algorithm 1), as LCM, DMD2 and sCM sample
too; with eta below 1, TCD's strategic stochastic sampling (Zheng et al. 2024, arXiv 2402.19159,
alg. 4). Faithful, in x_t = alpha x_0 + sigma eps for every path; not as published: re-noising adds
sigma(t) eps to alpha(t) x_0 with t the level itself, where the paper's EDM form writes
sqrt(t^2 - t_min^2). diffusers' own differ: LCM and TCD know discrete VP only, where they are used
(`stock`), SCM TrigFlow only, and CMStochasticIterative holds the network's preconditioning and
clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from genkit.schedulers.grid import PathGrid


class ConsistencyScheduler(PathGrid, SchedulerMixin, ConfigMixin):
    """Stochastic few-step sampling with the trained grid in its config.

    path: `Path.config()`. prediction_type: the kind the network returns. time_scale: network time
    = t times it. steps: the trained number. times: noise levels of a fixed grid, None for one
    uniform on the path's clock. network_times: what the network is told instead, in the same unit.
    start_scale: factor on the starting noise. eta: 1 re-noises x_0; below, a step follows the ODE
    to (1 - eta) of the next time, in the path's own unit, and noise brings it back. sigma_data: see
    `PathGrid`. opening: see `Sampler`.
    """

    stochastic = True

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
        eta: float = 1.0,
    ) -> None:
        self.prepare()
        self.sampler = replace(self.sampler, eta=eta)

    def plan(self) -> None:
        """x_0 = p x + q output, then alpha x_0 + sigma noise at the next level."""
        on_x, on_output = self.affine("x_0")
        self._on_x, self._on_output = on_x.tolist(), on_output.tolist()
        alpha, sigma = self.path.alpha(self.levels), self.path.sigma(self.levels)
        self._alpha, self._sigma = alpha.tolist(), sigma.tolist()
        if self.config.eta < 1:
            on_x, on_output = self.affine("eps")
            self._eps_on_x, self._eps_on_output = on_x.tolist(), on_output.tolist()
            end = (1 - self.config.eta) * self.levels
            kept = alpha / self.path.alpha(end) * self.path.sigma(end)
            self._kept, self._sigma = kept.tolist(), torch.sqrt(sigma**2 - kept**2).tolist()

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor, Tensor]:
        """x at the next level; x_0 itself after the last. The tuple form adds the predicted x_0.

        generator: one, or a list with one per sample, for the fresh noise.
        """
        i = self._advance()
        wide = torch.promote_types(sample.dtype, torch.float32)
        x_0 = self._on_x[i] * sample.to(wide) + self._on_output[i] * model_output.to(wide)
        x = x_0
        if i + 1 < len(self.levels):
            noise = randn_tensor(
                sample.shape, generator=generator, device=sample.device, dtype=sample.dtype
            )
            x = self._alpha[i + 1] * x_0 + self._sigma[i + 1] * self.path.prior(noise)
            if self.config.eta < 1:
                eps = self._eps_on_x[i] * sample.to(wide) + self._eps_on_output[i] * model_output
                x = x + self._kept[i + 1] * eps.to(wide)
        x, x_0 = x.to(sample.dtype), x_0.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x, x_0)
