"""Any known diffusers pipeline as a Denoiser: path, kind and network time read from its configs.

SCHEDULERS leads from a scheduler's class name to its path and grid; `families` knows the pipelines
and `calls` the networks. A new scheduler is one row; nothing is guessed from a name or a shape.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from genkit import hub
from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.causal import network_denoiser
from genkit.denoisers.checks import check_parts, check_scheduler
from genkit.denoisers.families import Family, default_guidance, find_family, unconditional
from genkit.denoisers.preconditioned import EDMPreconditioned
from genkit.guidance import Cond
from genkit.paths import EDM, DiscreteVP, Kind, Path, RectifiedFlow, make_path
from genkit.sampling import Sampler

# Where a pipeline names no trained number of steps; the steps teachers are measured at.
DEFAULT_STEPS = 50


@dataclass(frozen=True)
class Loaded:
    """A pipeline as a teacher.

    family: its row in PIPELINES. uncond: the conditions of no condition, batch 1. latent: shape of
    one sample. sampler: how the pipeline samples by default, guidance its default scale (1: off).
    """

    denoiser: NetworkDenoiser | EDMPreconditioned
    pipeline: Any
    family: Family
    uncond: Cond
    latent: tuple[int, ...]
    sampler: Sampler
    guidance: float


@dataclass(frozen=True)
class Schedule:
    """What a scheduler says: the network's path, kind and time, and a sampler of `steps`.
    sigma_data: of a network with EDM's preconditioning."""

    path: Path
    kind: Kind
    time_scale: float
    sampler: Sampler
    sigma_data: float | None = None


def _refuse(config: Any, *keys: str) -> None:
    for key in keys:
        if config.get(key):
            raise ValueError(f"a scheduler with {key} is not supported as a teacher's yet")


def _flow(scheduler: Any, steps: int) -> Schedule:
    """FlowMatchEuler and FlowMapEuler: rectified flow, velocity, timesteps 0..1000.

    The sampler is Euler on the evenly spaced, then shifted grid; FlowMatchEuler's own ends in an
    evaluation at sigma = 0.001, which is all but wasted.
    """
    config = scheduler.config
    _refuse(config, "use_dynamic_shifting", "stochastic_sampling", "invert_sigmas")
    shift = float(config["shift"])
    even = [1 - i / steps for i in range(steps)]
    times = tuple(shift * u / (1 + (shift - 1) * u) for u in even)
    sampler = Sampler(steps, None if shift == 1 else times)
    return Schedule(RectifiedFlow(), "velocity", float(config["num_train_timesteps"]), sampler)


def _ours(scheduler: Any, steps: int) -> Schedule:
    """ConsistencyScheduler and FlowScheduler hold it all."""
    config = scheduler.config
    path = make_path(dict(config["path"]))
    kind, scale = config["prediction_type"], config["time_scale"]
    return Schedule(path, kind, scale, scheduler.sampler, config.get("sigma_data"))


_PREDICTIONS: dict[str, Kind] = {
    "epsilon": "eps",
    "sample": "x_0",
    "v_prediction": "v_prediction",
}


def _discrete_vp(scheduler: Any, steps: int) -> Schedule:
    """The DDPM family: betas, num_train_timesteps and prediction_type in the config.

    The sampler is DDIM from the last timestep on, evenly spaced, whatever the scheduler: "leading"
    spacing, a common default, starts short of pure noise and evaluates at t = 1 for one step. What
    else a config holds (steps_offset, set_alpha_to_one, Karras' sigmas) moves the scheduler's own
    grid and not the path.
    """
    config = scheduler.config
    _refuse(config, "use_flow_sigmas", "use_dynamic_shifting")
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError(
            f"a scheduler with timestep_type {config['timestep_type']!r} tells its network sigmas, "
            "which is not supported as a teacher's yet"
        )
    if config.get("trained_betas") is not None:
        raise ValueError("a scheduler with trained_betas is not supported; name a beta_schedule")
    if config["prediction_type"] not in _PREDICTIONS:
        raise ValueError(
            f"unknown prediction_type {config['prediction_type']!r} in the scheduler's config; "
            f"choose one of {', '.join(_PREDICTIONS)}"
        )
    path = DiscreteVP(
        config["beta_schedule"],
        config["beta_start"],
        config["beta_end"],
        config["num_train_timesteps"],
        bool(config.get("rescale_betas_zero_snr", False)),
    )
    return Schedule(path, _PREDICTIONS[config["prediction_type"]], 1.0, Sampler(steps))


SCHEDULERS: dict[str, Callable[[Any, int], Schedule]] = {
    "FlowMapEulerDiscreteScheduler": _flow,
    "FlowMatchEulerDiscreteScheduler": _flow,
    "ConsistencyScheduler": _ours,
    "FlowScheduler": _ours,
    "DDIMScheduler": _discrete_vp,
    "DDPMScheduler": _discrete_vp,
    "DPMSolverMultistepScheduler": _discrete_vp,
    "EulerAncestralDiscreteScheduler": _discrete_vp,
    "EulerDiscreteScheduler": _discrete_vp,
    "LCMScheduler": _discrete_vp,
    "LMSDiscreteScheduler": _discrete_vp,
    "PNDMScheduler": _discrete_vp,
    "TCDScheduler": _discrete_vp,
    "UniPCMultistepScheduler": _discrete_vp,
}


def read_schedule(scheduler: Any, steps: int = DEFAULT_STEPS) -> Schedule:
    """Path, kind, network time and sampler of a diffusers scheduler, from its config.

    ValueError for a class that is not in SCHEDULERS, or a config that no Path describes.
    """
    name = type(scheduler).__name__
    if name not in SCHEDULERS:
        raise ValueError(
            f"the scheduler {name} is not known as a teacher's; known: {', '.join(SCHEDULERS)}"
        )
    return SCHEDULERS[name](scheduler, steps)


def find_network(pipeline: Any) -> Any:
    """The pipeline's denoising network; ValueError for a pipeline of an unknown class."""
    return pipeline.components[find_family(pipeline).role]


def as_denoiser(pipeline: Any) -> Loaded:
    """An open pipeline as a Denoiser with what sampling it needs; it shares the network.

    ValueError for a pipeline, network or scheduler of an unknown class, for configs that ask for
    what no call gives, and for parts that contradict each other.
    """
    family = find_family(pipeline)
    network = pipeline.components[family.role]
    check_scheduler(pipeline, family)
    trained = hub.trained(pipeline)
    schedule = read_schedule(pipeline.scheduler, trained.get("steps", DEFAULT_STEPS))
    check_parts(pipeline, family, schedule.path)
    denoiser = network_denoiser(
        network,
        schedule.path,
        schedule.kind,
        schedule.time_scale,
        bool(network.config.get("two_time", False)),
    )
    if schedule.sigma_data is not None:
        assert isinstance(schedule.path, EDM), "EDM's preconditioning is of EDM's path"
        denoiser = EDMPreconditioned(denoiser, schedule.path, schedule.sigma_data)
    return Loaded(
        denoiser,
        pipeline,
        family,
        unconditional(pipeline, family),
        family.latent(pipeline),
        schedule.sampler,
        float(trained.get("guidance", 1.0)) if trained else default_guidance(pipeline),
    )


def load_denoiser(name_or_dir: str | os.PathLike[str]) -> Loaded:
    """`as_denoiser` of a folder, a shipped name or a hub id; ValueError for what is none."""
    return as_denoiser(hub.Pipeline.from_pretrained(name_or_dir))
