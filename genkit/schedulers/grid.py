"""What our schedulers share: a Path, the trained grid of noise levels on it, and a step counter.

Coefficients of the steps are Python floats, computed once per grid in float64, so a step reads
nothing back from the device. Steps are therefore counted, not looked up by their timestep: call
`step` in the order of `timesteps`, and `set_begin_index` before starting in the middle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genkit.paths import KINDS, edm_time, edm_weights, make_path
from genkit.sampling import Sampler

# Beyond this a coefficient amplifies rounding of float32 to nothing but rounding.
LARGEST = 1e6


class PathGrid:
    """Base of genkit's schedulers, beside diffusers' SchedulerMixin and ConfigMixin.

    A subclass's __init__ registers path, prediction_type, time_scale, steps and times (and
    network_times, start_scale, opening) in its config and calls `prepare`; it computes its
    coefficients in `plan`. `levels` are the grid's noise levels t, `timesteps` what the network is
    told.
    sigma_data: of a bare network with EDM's preconditioning (arXiv 2206.00364, table 1), which is
    then applied here, as diffusers' EDM schedulers do: input, time and output; prediction_type is
    what comes of it, "x_0".
    """

    config: Any
    order = 1  # network evaluations per step, in diffusers' sense
    stochastic = False

    def prepare(self, order: int = 1) -> None:
        """Build the path and the trained grid from the config; ValueError for what cannot be."""
        config = self.config
        self.path = make_path(dict(config.path))
        if config.prediction_type not in KINDS:
            raise ValueError(
                f"unknown prediction_type {config.prediction_type!r}; choose one of "
                f"{', '.join(KINDS)}"
            )
        if config.sigma_data is not None and config.prediction_type != "x_0":
            raise ValueError(
                f"a preconditioned network predicts x_0, not {config.prediction_type}; leave "
                "sigma_data out, or give prediction_type 'x_0'"
            )
        self.sampler = Sampler(
            config.steps,
            _floats(config.times),
            _floats(config.network_times),
            self.stochastic,
            order,
            start_scale=config.start_scale,
            opening=config.opening,
        )
        self.set_timesteps()
        # Unit noise times this is x at the first level, the data's share being dropped.
        self.init_noise_sigma = config.start_scale * float(self.path.start_scale(self.levels[0]))

    @property
    def fixed(self) -> bool:
        """Whether the grid is explicit, so that only the trained number of steps can be asked."""
        return self.sampler.times is not None or self.sampler.network_times is not None

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Lay the grid of `num_inference_steps`, None meaning the trained number.

        ValueError for fewer than one, and for any but the trained number on an explicit grid.
        """
        trained = self.sampler.steps
        steps = trained if num_inference_steps is None else num_inference_steps
        if self.fixed and steps != trained:
            raise ValueError(
                f"this sampler was trained for exactly {trained} steps, not {steps}; leave "
                f"num_inference_steps out, or give {trained}"
            )
        sampler = self.sampler if self.fixed else replace(self.sampler, steps=steps)
        self.levels = sampler.grid(self.path)
        self._check_levels()
        self._step_index: int | None = None
        self._begin_index: int | None = None
        self.plan()
        told = self.levels
        if sampler.network_times is not None:
            told = torch.tensor(sampler.network_times, dtype=torch.float64)
        if self.config.sigma_data is not None:
            told = edm_time(told)
            self._scales = edm_weights(self.levels, self.config.sigma_data)[2].tolist()
        told = told * self.config.time_scale
        where = torch.device("cpu" if device is None else device)
        self.timesteps = (told.float() if where.type == "mps" else told).to(where)
        self.num_inference_steps = steps

    def _check_levels(self) -> None:
        low, high = float(self.levels.min()), float(self.levels.max())
        slack = 1e-6 * self.path.t_max
        if low < min(self.path.t_min, 0.0) - slack or high > self.path.t_max + slack:
            raise ValueError(
                f"times {low:g} to {high:g} lie outside the path {self.path.name!r}, whose t runs "
                f"from {self.path.t_min:g} to {self.path.t_max:g}"
            )
        if not bool((self.levels[1:] < self.levels[:-1]).all()):
            raise ValueError("times must decrease strictly, from noise to data")

    def plan(self) -> None:
        """Compute the coefficients of the steps from `levels` and where sampling begins."""
        raise NotImplementedError

    def affine(self, kind: Any) -> tuple[Tensor, Tensor]:
        """(p, q), each (steps,), such that the prediction of `kind` is p x + q output.

        ValueError where the network's own kind cannot give it at a level of the grid.
        """
        one, zero = torch.ones_like(self.levels), torch.zeros_like(self.levels)
        source = self.config.prediction_type
        on_x = self.path.convert(zero, one, self.levels, source, kind)
        on_output = self.path.convert(one, zero, self.levels, source, kind)
        if self.config.sigma_data is not None:
            skip, out, _ = edm_weights(self.levels, self.config.sigma_data)
            on_x, on_output = on_x + on_output * skip, on_output * out
        known = (on_x.abs() < LARGEST) & (on_output.abs() < LARGEST)
        if not bool(known.all()):
            worst = float(self.levels[~known][0])
            raise ValueError(
                f"a network that predicts {source} says nothing of {kind} at t = {worst:g} on the "
                f"path {self.path.name!r}; use a grid without this time"
            )
        return on_x, on_output

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample itself, as our networks take x_t; for a preconditioned one, c_in times it."""
        if self.config.sigma_data is None:
            return sample
        i = self._begin_index or 0 if self._step_index is None else self._step_index
        return sample * self._scales[i]

    @property
    def step_index(self) -> int | None:
        """Index of the next step, None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Index of the first step where it is not 0."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at this index of `timesteps`; call it after `set_timesteps`, before a step."""
        self._begin_index = begin_index
        self.plan()

    def _advance(self) -> int:
        """Count a step and return its index."""
        index = self._begin_index or 0 if self._step_index is None else self._step_index
        if index >= len(self.levels):
            raise ValueError(
                f"step was called after the last of {len(self.levels)} steps; call set_timesteps "
                "before sampling again"
            )
        self._step_index = index + 1
        return index

    def __len__(self) -> int:
        return len(self.levels)


def _floats(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)
