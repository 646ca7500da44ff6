"""Class-conditional images by any network on any Path: the pipeline of the digits.

What depends on the training (path, kind, grid, stochastic or not) is held by the scheduler's
config, so this one pipeline runs every teacher and student of this shape. Latents are pixels in
[-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from genkit.denoisers.calls import class_conditional
from genkit.sampling import Evaluate, Generators
from genkit_pipelines.trained import AfterStep, TrainedPipeline, tensor_inputs


class ClassConditionalImagePipeline(TrainedPipeline):
    """Images of the classes asked for.

    network: called as (x, timestep, class_labels), with a second timestep or guidance= where its
    config says two_time or guidance_input; its config gives in_channels, sample_size and
    num_classes, and class `num_classes` means no class. scheduler: holds the trained grid.
    """

    model_cpu_offload_seq = "network"

    def __init__(self, network: ModelMixin, scheduler: SchedulerMixin) -> None:
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    def check_inputs(self, labels: Sequence[int]) -> None:
        """ValueError for what a call cannot use."""
        classes = int(self.network.config["num_classes"])
        wrong = [n for n in labels if isinstance(n, bool) or not isinstance(n, int)]
        if wrong or not labels:
            raise ValueError(
                f"class_labels is {wrong or labels}; give integers, 0 to {classes - 1}"
            )
        outside = [n for n in labels if not 0 <= n < classes]
        if outside:
            raise ValueError(f"class label {outside[0]} is out of range; give 0 to {classes - 1}")

    def _evaluation(self, labels: Tensor, style: dict[str, Tensor]) -> Evaluate:
        """The network's raw output with guidance, in one doubled batch unless the scale is 1."""
        nothing = labels.new_full((len(labels),), int(self.network.config["num_classes"]))
        call = partial(class_conditional, partial(self.network, **style))
        return self.guided(call, {"label": labels}, {"label": nothing})

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | list[int],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: AfterStep | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        style: int | Sequence[float] | None = None,
    ) -> Any:
        """`num_images_per_prompt` images of each class label, those of one label together.

        num_inference_steps, guidance_scale: None means as trained; guidance is uncond +
        scale (cond - uncond), 1 is off. generator: one, or a list with one per image, which makes
        an image independent of the others. latents: unit noise (n, channels, size, size).
        output_type: "pil", "np" (n, h, w, c) and "pt" (n, c, h, w) in [0, 1], or "latent", the
        network's own output in [-1, 1], unclipped. Returns ImagePipelineOutput, or a tuple.
        callback_on_step_end(pipeline, step, timestep, {"latents": x}) -> dict runs after each step.
        style: of a network merged of several, the number of one or a weight for each, all images
        alike; by default the first.
        ValueError for labels out of range, steps below 1 or other than the trained number on a
        fixed grid, latents of a wrong shape, a list of generators of a wrong length, or a style
        that was not trained.
        """
        wanted = tensor_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)
        self.check_call(num_images_per_prompt, output_type, wanted)
        labels = class_labels if isinstance(class_labels, list) else [class_labels]
        self.check_inputs(labels)
        steps = self.trained_steps(num_inference_steps)
        self._guidance_scale = self.trained_guidance(guidance_scale)
        label = torch.tensor(labels, device=self._execution_device)
        label = label.repeat_interleave(num_images_per_prompt)
        config = self.network.config
        shape = (len(label), config["in_channels"], config["sample_size"], config["sample_size"])
        noise = self.start(shape, generator, latents, label.device, self.network.dtype)
        evaluate = self._evaluation(label, self.styled(style))
        x = self.run_sampler(evaluate, noise, steps, generator, callback_on_step_end, wanted)
        images: Any = self.image_processor.postprocess(x, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)
