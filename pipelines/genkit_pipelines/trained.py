"""The base of genkit's pipelines: a DiffusionPipeline whose defaults are the trained ones.

The defaults (steps, guidance) are kept in model_index.json under `_genkit`, by `genkit.hub`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from genkit import hub
from genkit.sampling import Generators


class TrainedPipeline(DiffusionPipeline):
    """What genkit's pipelines share: opening, trained defaults, and checks of a call's arguments.

    The progress bar appears on calls that last longer than two seconds;
    `set_progress_bar_config` changes that as in any diffusers pipeline.
    """

    scheduler: Any

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

    def start(self, shape: Sequence[int], generator: Generators, latents: Tensor | None) -> Tensor:
        """Unit noise of `shape`, or `latents` where given; ValueError for a wrong shape or number
        of generators."""
        shape = tuple(shape)
        if isinstance(generator, Sequence) and len(generator) != shape[0]:
            raise ValueError(
                f"{len(generator)} generators for {shape[0]} samples; give one or each"
            )
        device, dtype = self._execution_device, self.dtype
        if latents is not None:
            if tuple(latents.shape) != shape:
                raise ValueError(f"latents have shape {tuple(latents.shape)}; {shape} is needed")
            return latents.to(device, dtype)
        many = list(generator) if isinstance(generator, Sequence) else generator
        return randn_tensor(shape, generator=many, device=device, dtype=dtype)
