"""Which of diffusers' own schedulers runs a sampler exactly, so that a student leaves with it.

Rectified flow: FlowMapEuler, on an even or shifted grid. Discrete VP: DDIM, and for students whose
x_0 is re-noised LCM (Luo et al. 2023, arXiv 2310.04378), or TCD (Zheng et al. 2024, arXiv
2402.19159), on the trailing grid. What none of them holds gets one of ours.
"""

from __future__ import annotations

from typing import Any

from genkit.paths import Kind, Path
from genkit.sampling import TCD_ETA, Sampler

PREDICTIONS: dict[str, Any] = {"eps": "epsilon", "x_0": "sample", "v_prediction": "v_prediction"}


def stock_scheduler(sampler: Sampler, path: Path, kind: Kind, time_scale: float) -> Any | None:
    """diffusers' scheduler whose config holds the sampler and takes its steps; None if none does.

    kind: what the network predicts. time_scale: network time = t times it.
    """
    if path.dimensions is not None or sampler.order > 1 or sampler.start_scale != 1:
        return None
    if sampler.network_times is not None or sampler.opening > 1:
        return None
    if path.name == "rectified_flow" and kind == "velocity" and time_scale == 1000:
        shift = _shift(sampler)
        renoises = sampler.stochastic and sampler.steps > 1
        return None if shift is None or renoises else _flow_map_euler(shift)
    if path.name == "discrete_vp" and time_scale == 1 and sampler.times is None:
        return _discrete(sampler, path, kind)
    return None


def _shift(sampler: Sampler) -> float | None:
    """The shift s with which the uniform grid u is s u / (1 + (s - 1) u); None for other grids,
    and for a single time, which tells no shift."""
    if sampler.times is None:
        return 1.0
    if sampler.steps == 1 or not 0 < sampler.times[1] < 1:
        return None
    even = [1 - i / sampler.steps for i in range(sampler.steps)]
    shift = sampler.times[1] * (1 - even[1]) / (even[1] * (1 - sampler.times[1]))
    grid = [shift * u / (1 + (shift - 1) * u) for u in even]
    near = all(abs(t - u) < 1e-9 for t, u in zip(sampler.times, grid, strict=True))
    return shift if near else None


def _flow_map_euler(shift: float) -> Any:
    from diffusers.schedulers.scheduling_flow_map_euler_discrete import (
        FlowMapEulerDiscreteScheduler,
    )

    # A shift that comes from a grid of times is rounded to what a person would have written.
    return FlowMapEulerDiscreteScheduler(num_train_timesteps=1000, shift=round(shift, 9))


def _discrete(sampler: Sampler, path: Path, kind: Kind) -> Any | None:
    """DDIM or LCM on the trailing grid, ending at x_0, or TCD on the same, ending at index 0.

    They step by N // steps, which leaves the grid unless steps divides N. With zero terminal SNR
    they divide an eps-prediction by 0; from the other kinds the first x_0 lacks our path's 2^-12 of
    x.
    """
    betas, steps = path.config(), sampler.steps
    del betas["name"]
    every, lost = betas["num_train_timesteps"], betas["rescale_betas_zero_snr"] and kind == "eps"
    if kind not in PREDICTIONS or lost or every % steps:
        return None
    # Of all N times LCM and TCD take every N / steps, whatever number of steps is asked for; Stable
    # Diffusion's pipeline rewrites any steps_offset but 1, which moves none of these grids.
    held = {**betas, "prediction_type": PREDICTIONS[kind], "steps_offset": 1}
    if sampler.stochastic and sampler.eta == TCD_ETA:
        from diffusers.schedulers.scheduling_tcd import TCDScheduler

        return TCDScheduler(**held, original_inference_steps=every)
    if sampler.stochastic:  # of one step too: of such a student more may be asked
        if sampler.eta < 1 or steps == every:  # at index 0 LCM answers x_t itself
            return None
        from diffusers.schedulers.scheduling_lcm import LCMScheduler

        # c_skip and c_out in float32 are 0 and 1 then: the student's x_0 is its network's own.
        return LCMScheduler(**held, original_inference_steps=every, timestep_scaling=1e4)
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        **held, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )
