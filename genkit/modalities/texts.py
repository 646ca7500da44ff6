"""Pictures of what a prompt says: text-to-image, in pixels or in a VAE's latents.

A teacher trained here reads tokens, and its text encoder is trained with it; its students, like
those of any diffusers pipeline, read the embeddings that the pipeline's own frozen encoder makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit.data.base import Gathered, Prompts, Samples
from genkit.denoisers.diffusers import Loaded
from genkit.latents import decoded, decoded_with_gradient, encoded
from genkit.modalities.base import Modality, square
from genkit.modalities.sheet import write_sheet

ENCODED = 64  # prompts, or pictures, that an encoder or decoder is given at once


@dataclass(frozen=True)
class TextImages(Modality):
    """Pictures (c, s, s) in [-1, 1] and a prompt each.

    prompts: of training. held_out: of previews, measurements and evaluations; where a data set has
    none, the prompts. tokenizer: of the prompts' words, for a teacher to be trained. teacher: the
    pipeline whose encoder reads the prompts, for its students.
    """

    prompts: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    tokenizer: Any = None
    teacher: Loaded | None = None

    @classmethod
    def of(cls, data: Samples) -> TextImages:
        """The modality of a data set with captions, of which a teacher is to be trained."""
        from genkit.networks.text import tokens_of, word_tokenizer

        latent = square(data)
        tokenizer = word_tokenizer(data.captions)
        none = {"tokens": tokens_of(tokenizer, [""])}
        held_out = data.held_out or data.captions
        words = {"prompts": data.captions, "held_out": held_out, "tokenizer": tokenizer}
        return cls(data.name, latent, none, kind="x_0", **words)

    @classmethod
    def of_teacher(cls, data: Samples | Prompts, teacher: Loaded) -> TextImages:
        """The modality of a text-to-image teacher and the prompts it is distilled on."""
        prompts = data.prompts if isinstance(data, Prompts) else data.captions
        held_out = (data.held_out if isinstance(data, Samples) else ()) or prompts
        words = {"prompts": prompts, "held_out": held_out, "teacher": teacher}
        return cls(data.name, teacher.latent, teacher.uncond, kind=teacher.denoiser.kind, **words)

    @property
    def _vae(self) -> Any | None:
        return None if self.teacher is None else self.teacher.pipeline.components.get("vae")

    def _read(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Conditions of the prompts; equal ones are encoded once."""
        unique = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        index = torch.tensor([unique[prompt] for prompt in prompts])
        table = self._encode(list(unique))
        return {name: Gathered(value, index) for name, value in table.items()}

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        if self.teacher is None:
            from genkit.networks.text import tokens_of

            return {"tokens": tokens_of(self.tokenizer, prompts)}
        encode = self.teacher.family.encode
        assert encode is not None, "the modality of prompts is given to pipelines that take text"
        parts = [
            encode(self.teacher.pipeline, prompts[first : first + ENCODED])
            for first in range(0, len(prompts), ENCODED)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def asked(self, n: int) -> tuple[str, ...]:
        return tuple(self.held_out[i % len(self.held_out)] for i in range(n))

    def cond(self, n: int) -> dict[str, Tensor]:
        return {name: value[:] for name, value in self._read(self.asked(n)).items()}

    def preview_cond(self) -> dict[str, Tensor]:
        # Two pictures of each prompt.
        half = self.cond(self.preview_n // 2)
        return {name: value.repeat_interleave(2, 0) for name, value in half.items()}

    def training_cond(self, n: int) -> dict[str, Any]:
        return self._read([self.prompts[i % len(self.prompts)] for i in range(n)])

    def batches(self, data: Samples) -> dict[str, Any]:
        return {"x_0": self.latents(data), "cond": self._read(data.captions)}

    def latents(self, data: Samples) -> Tensor:
        """Pictures (n, 3, h, w) as the latents that are learned. ValueError for a wrong size."""
        pictures = data.x_0
        latents = self._in_parts(encoded, pictures)
        if tuple(latents.shape[1:]) != self.latent:
            raise ValueError(
                f"the pictures of {self.name} are {tuple(pictures.shape[1:])}, which gives latents "
                f"{tuple(latents.shape[1:])}; the teacher's are {self.latent}"
            )
        return latents

    def network(self) -> Any:
        from genkit.networks.text import PromptedNetwork, text_encoder, text_transformer

        channels, size, _ = self.latent
        return PromptedNetwork(text_encoder(len(self.tokenizer)), text_transformer(channels, size))

    def pipeline(self, network: Any, scheduler: Any) -> Any:
        if self.teacher is not None:
            from genkit.denoisers.families import rebuilt

            return rebuilt(self.teacher.pipeline, network, scheduler)
        from genkit_pipelines.image.text_to_image import TextToImagePipeline

        return TextToImagePipeline(self.tokenizer, network.text_encoder, network.network, scheduler)

    def generate(
        self,
        pipeline: Any,
        asked: Any,
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
    ) -> Tensor:
        from genkit.denoisers.families import find_family, scheduler_arguments

        family = find_family(pipeline)
        assert family.encode is not None, "a pipeline of prompts takes text"
        cond = family.encode(pipeline, list(asked))
        # A network that takes the scale as an input is guided from nothing.
        takes = pipeline.components[family.role].config.get("guidance_input", False)
        uncond = None if guidance == 1 or takes else family.encode(pipeline, [""])
        return pipeline(
            **family.arguments(cond, uncond),
            **scheduler_arguments(pipeline),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="latent",
        ).images

    def decode(self, latent: Tensor) -> Tensor:
        return self._in_parts(decoded, latent)

    def decode_for_loss(self, latent: Tensor) -> Tensor:
        if self._vae is None:
            return latent
        vae = self._vae.requires_grad_(False).to(latent.device)
        return decoded_with_gradient(vae, latent)

    def _in_parts(self, code: Callable[[Any, Tensor], Tensor], x: Tensor) -> Tensor:
        """x through the VAE, some at a time; x itself, not a copy, without one."""
        if self._vae is None:
            return x
        return torch.cat([code(self._vae, part) for part in x.split(ENCODED)])

    def render(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        return write_sheet({name: self.decode(each) for name, each in rows.items()}, stem)
