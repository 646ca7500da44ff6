"""The base of genkit's pipelines: a DiffusionPipeline whose defaults are the trained ones.

The defaults (steps, guidance) are kept in model_index.json under `_genkit`, by `genkit.hub`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from genkit import hub
from genkit.guidance import Cond, both, guide, told
from genkit.networks.styled import mixed
from genkit.sampling import Evaluate, Generators, sample
from genkit.schedulers.grid import PathGrid

OUTPUTS = ("pil", "np", "pt", "latent")
AfterStep = Callable[..., dict[str, Tensor]]
# (x, timestep, conditions by name, and the second time of a network of two) -> its raw output.
Call = Callable[..., Tensor]


class TrainedPipeline(DiffusionPipeline):
    """What genkit's pipelines share: opening, trained defaults, and checks of a call's arguments.

    The progress bar appears on calls that last longer than two seconds;
    `set_progress_bar_config` changes that as in any diffusers pipeline.
    """

    scheduler: Any
    _callback_tensor_inputs = ["latents"]
    _guidance_scale = 1.0
    _num_timesteps = 0

    def __init__(self) -> None:
        super().__init__()
        self.set_progress_bar_config(delay=2.0)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Any:
        """A folder, a shipped name or a hub id, with its trained defaults; else a ValueError."""
        folder = hub.resolve(pretrained_model_name_or_path)
        return hub.load(folder, super().from_pretrained, **kwargs)

    @property
    def guidance_scale(self) -> float:
        """The scale of the call in progress; a callback may set `_guidance_scale`."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """The number of evaluations of the last call."""
        return self._num_timesteps

    def check_call(self, many: int, output_type: str, tensor_inputs: Sequence[str]) -> None:
        """ValueError for a number of samples per prompt below one, an output type or a callback's
        tensor there is none of."""
        if many < 1:
            raise ValueError(f"num_images_per_prompt is {many}; give at least 1")
        if output_type not in OUTPUTS:
            raise ValueError(f"unknown output_type {output_type!r}; choose {', '.join(OUTPUTS)}")
        unknown = [name for name in tensor_inputs if name not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs names {unknown[0]!r}; there is only "
                f"{', '.join(self._callback_tensor_inputs)}"
            )

    def guided(
        self, call: Call, cond: Cond, uncond: Cond | None, avoided: bool = False
    ) -> Evaluate:
        """The raw output of call(x, timestep, conditions by name, second time where there is one)
        with guidance, in one doubled batch unless the scale is 1 or there is nothing to be guided
        from.

        A network that takes the scale as an input is told it as "w", and evaluated once. Where
        something is to be avoided, which it has not learned, it is told 1 and guided like others.
        """
        whole: Any = self
        takes = bool(whole.network.config.get("guidance_input", False))
        doubled = cond if uncond is None else both(cond, uncond, len(next(iter(cond.values()))))

        def evaluate(x: Tensor, timestep: Tensor, *second: Tensor) -> Tensor:
            scale = self._guidance_scale
            if uncond is None or scale == 1 or (takes and not avoided):
                return call(x, timestep, told(cond, scale, x) if takes else cond, *second)
            twice = [torch.cat([each, each]) for each in (x, timestep, *second)]
            asked = told(doubled, 1.0, twice[0]) if takes else doubled
            without, within = call(*twice[:2], asked, *twice[2:]).chunk(2)
            return guide(within, without, scale)

        return evaluate

    def run_sampler(
        self,
        evaluate: Evaluate,
        noise: Tensor,
        steps: int,
        generator: Generators,
        callback: AfterStep | None,
        tensor_inputs: Sequence[str],
    ) -> Tensor:
        """The sampling loop under a progress bar, with the caller's callback after every step."""
        whole: Any = self  # the type of progress_bar is hidden by its decorator
        self._num_timesteps = steps
        with whole.progress_bar(total=steps) as progress:

            def after(i: int, timestep: Tensor, x: Tensor) -> Tensor:
                progress.update()
                if callback is None:
                    return x
                given = {"latents": x} if tensor_inputs else {}
                return callback(self, i, timestep, given).pop("latents", x)

            return sample(
                evaluate,
                self.scheduler,
                noise,
                steps,
                generator,
                callback=after,
                two_time=bool(whole.network.config.get("two_time", False)),
            )

    def styled(self, style: int | Sequence[float] | None) -> dict[str, Tensor]:
        """What the network is given of a style; ValueError for one that was not trained."""
        if style is None:
            return {}
        whole: Any = self
        styles = whole.network.config.get("styles")
        if styles is None:
            raise ValueError("this pipeline has no styles; leave style out")
        weights = mixed(style, styles).to(self._execution_device, whole.network.dtype)
        return {"style": weights}

    def trained_steps(self, steps: int | None) -> int:
        """The number of steps asked for, or the trained one; ValueError for fewer than one."""
        if steps is None:
            steps = hub.trained(self).get("steps", self.scheduler.config.get("steps"))
        if steps is None:
            raise ValueError(
                "this pipeline has no trained number of steps; give num_inference_steps"
            )
        if steps < 1:
            raise ValueError(f"num_inference_steps is {steps}; give at least 1")
        return steps

    def trained_guidance(self, scale: float | None) -> float:
        """The guidance scale asked for, or the trained one (1 is off)."""
        return float(hub.trained(self).get("guidance", 1.0)) if scale is None else float(scale)

    def start(
        self,
        shape: Sequence[int],
        generator: Generators,
        latents: Tensor | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Unit noise of `shape`, of the prior that the scheduler's path has, or `latents` where
        given; ValueError for a wrong shape or number of generators."""
        shape = tuple(shape)
        if isinstance(generator, Sequence) and len(generator) != shape[0]:
            raise ValueError(
                f"{len(generator)} generators for {shape[0]} samples; give one or each"
            )
        if latents is not None:
            if tuple(latents.shape) != shape:
                raise ValueError(f"latents have shape {tuple(latents.shape)}; {shape} is needed")
            return latents.to(device, dtype)
        many = list(generator) if isinstance(generator, Sequence) else generator
        noise = randn_tensor(shape, generator=many, device=device, dtype=dtype)
        # Stock schedulers have no path of ours, and Gaussian noise.
        ours = isinstance(self.scheduler, PathGrid)
        return self.scheduler.path.prior(noise) if ours else noise


def tensor_inputs(callback: AfterStep | None, named: Sequence[str]) -> Sequence[str]:
    """The tensors a callback asks for: its own list, where it is one of diffusers' classes."""
    if isinstance(callback, (PipelineCallback, MultiPipelineCallbacks)):
        return callback.tensor_inputs
    return named
