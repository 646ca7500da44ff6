"""Text-to-image by any text-conditioned network on any Path, in pixels or in a VAE's latents.

What depends on the training (path, kind, grid, stochastic or not) is held by the scheduler's
config, so this one pipeline runs every teacher and student of this shape.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from genkit.guidance import Cond
from genkit.latents import decoded, vae_scale
from genkit.networks.text import tokens_of
from genkit.sampling import Evaluate, Generators
from genkit_pipelines.trained import AfterStep, TrainedPipeline, tensor_inputs

Prompt = str | list[str]


class TextToImagePipeline(TrainedPipeline):
    """Images of what a prompt says.

    network: called as (x, encoder_hidden_states=, timestep=), with second_timestep= or guidance=
    where its config says two_time or guidance_input; its config gives in_channels and sample_size.
    text_encoder: its last hidden state conditions the network; padding is seen like any token, and
    no condition is the empty prompt. vae: AutoencoderKL or AutoencoderTiny, whose latents the
    network makes; None for pixels in [-1, 1].
    """

    model_cpu_offload_seq = "text_encoder->network->vae"
    _optional_components = ["vae"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        network: ModelMixin,
        scheduler: SchedulerMixin,
        vae: ModelMixin | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            network=network,
            scheduler=scheduler,
            vae=vae,
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=vae_scale(vae))

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """(n, length) tokens, padded. Says once per call which words the vocabulary does not have,
        and which prompts are cut."""
        tokenizer: Any = self.tokenizer
        length = tokenizer.model_max_length
        whole = tokenizer(list(prompts)).input_ids
        for prompt, ids in zip(prompts, whole, strict=True):
            if len(ids) > length:
                kept = tokenizer.decode(ids[: length - 1])
                warnings.warn(
                    f"the prompt {prompt!r} has {len(ids) - 1} words, more than {length - 1}; only "
                    f"{kept!r} is read",
                    stacklevel=3,
                )
        # Few prompts have one, and asking word by word takes as long as all the rest here.
        if any(tokenizer.unk_token_id in ids for ids in whole):
            strange = sorted(_unknown(tokenizer, prompts))
            warnings.warn(
                f"words this model does not know, all read alike: {', '.join(strange)}",
                stacklevel=3,
            )
        return tokens_of(tokenizer, prompts).to(self._execution_device)

    def embed(self, tokens: Tensor) -> Tensor:
        """(n, length) tokens as (n, length, width) embeddings."""
        with torch.no_grad():
            return self.text_encoder(input_ids=tokens).last_hidden_state

    def encode_prompt(self, prompt: Prompt) -> Tensor:
        """(n, length, width) embeddings of one prompt or of several."""
        return self.embed(self.tokens([prompt] if isinstance(prompt, str) else prompt))

    def check_inputs(
        self,
        prompt: Prompt | None,
        negative_prompt: Prompt | None,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
    ) -> None:
        """ValueError for what a call cannot use."""
        if (prompt is None) == (prompt_embeds is None):
            raise ValueError("give either prompt or prompt_embeds")
        if prompt == []:
            raise ValueError("prompt is an empty list; give at least one prompt")
        for name, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            each = [text] if text is None or isinstance(text, str) else text
            if not isinstance(each, list) or any(not isinstance(t, str | None) for t in each):
                raise ValueError(f"{name} is {text!r}; give a string or a list of strings")
        if negative_prompt is not None and negative_prompt_embeds is not None:
            raise ValueError("give negative_prompt or negative_prompt_embeds, not both")

    def _nothing(
        self, negative_prompt: Prompt | None, embeds: Tensor | None, like: Tensor
    ) -> Tensor:
        """Embeddings of no condition, or of what is to be avoided, as many as `like` has."""
        if embeds is None:
            embeds = self.encode_prompt(negative_prompt or "")
        if len(embeds) not in (1, len(like)):
            raise ValueError(
                f"{len(embeds)} negative prompts for {len(like)} prompts; give one, or one each"
            )
        return embeds.to(like).expand(len(like), *embeds.shape[1:])

    def _embeds(self, prompt: Prompt | None, embeds: Tensor | None) -> Tensor:
        """Embeddings of a prompt, or those given, as the network takes them."""
        if embeds is None:
            assert prompt is not None, "checked"
            embeds = self.encode_prompt(prompt)
        return embeds.to(self._execution_device, self.network.dtype)

    def _evaluation(
        self, cond: Tensor, uncond: Tensor | None, avoided: bool, style: dict[str, Tensor]
    ) -> Evaluate:
        """The network's raw output with guidance, in one doubled batch unless the scale is 1."""

        def network(x: Tensor, timestep: Tensor, told: Cond, *second: Tensor) -> Tensor:
            more = {"second_timestep": second[0]} if second else {}
            if "w" in told:
                more["guidance"] = told["w"]
            return self.network(
                x,
                encoder_hidden_states=told["text"],
                timestep=timestep,
                return_dict=False,
                **more,
                **style,
            )[0]

        nothing = None if uncond is None else {"text": uncond}
        return self.guided(network, {"text": cond}, nothing, avoided)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents as pictures (n, 3, h, w) in [-1, 1]."""
        return decoded(self.vae, latents)

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt | None = None,
        negative_prompt: Prompt | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: AfterStep | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        style: int | Sequence[float] | None = None,
    ) -> Any:
        """`num_images_per_prompt` images of each prompt, those of one prompt together.

        num_inference_steps, guidance_scale: None means as trained; guidance is uncond +
        scale (cond - uncond), 1 is off, and negative prompts then do nothing (which is said). A
        network that takes the scale as an input is evaluated once; beside a negative prompt it is
        told 1 and guided like others.
        generator: one, or a list with one per image, which makes an image independent of the
        others. latents: unit noise (n, channels, size, size). prompt_embeds: of `encode_prompt`.
        output_type: "pil", "np" (n, h, w, c) and "pt" (n, c, h, w) in [0, 1], or "latent", the
        network's own output, unclipped. Returns ImagePipelineOutput, or a tuple.
        callback_on_step_end(pipeline, step, timestep, {"latents": x}) -> dict runs after each step.
        style: of a network merged of several, the number of one or a weight for each, all images
        alike; by default the first.
        ValueError for prompts that are none, steps below 1 or other than the trained number on a
        fixed grid, latents of a wrong shape, a list of generators of a wrong length, or a style
        that was not trained.
        """
        wanted = tensor_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)
        self.check_call(num_images_per_prompt, output_type, wanted)
        self.check_inputs(prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
        steps = self.trained_steps(num_inference_steps)
        self._guidance_scale = self.trained_guidance(guidance_scale)
        cond = self._embeds(prompt, prompt_embeds)
        uncond = None
        if self._guidance_scale != 1:
            uncond = self._nothing(negative_prompt, negative_prompt_embeds, cond)
            uncond = uncond.repeat_interleave(num_images_per_prompt, 0)
        elif negative_prompt:
            warnings.warn("negative_prompt does nothing at guidance_scale 1", stacklevel=2)
        cond = cond.repeat_interleave(num_images_per_prompt, 0)
        config = self.network.config
        size = config["sample_size"]
        shape = (len(cond), config["in_channels"], size, size)
        noise = self.start(shape, generator, latents, cond.device, cond.dtype)
        avoided = bool(negative_prompt) or negative_prompt_embeds is not None
        evaluate = self._evaluation(cond, uncond, avoided, self.styled(style))
        x = self.run_sampler(evaluate, noise, steps, generator, callback_on_step_end, wanted)
        pixels = x if output_type == "latent" else self.decode_latents(x)
        images: Any = self.image_processor.postprocess(pixels, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)


def _unknown(tokenizer: Any, prompts: Sequence[str]) -> set[str]:
    """The words of the prompts that become the tokenizer's unknown token."""
    words = {word for prompt in prompts for word in prompt.split()}
    ids = {word: tokenizer(word, add_special_tokens=False).input_ids for word in words}
    return {word for word, tokens in ids.items() if tokenizer.unk_token_id in tokens}
