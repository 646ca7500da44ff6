"""Pictures with captions: text-to-image, in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit.data.base import Samples
from genkit.guidance import Cond
from genkit.modalities.base import Modality
from genkit.modalities.sheet import write_sheet


@dataclass(frozen=True)
class TextImages(Modality):
    """Pictures (c, s, s) in [-1, 1] and a caption each.

    prompts: captions of new combinations where the data set has such, which pairs, previews and
    evaluations use. tokenizer: of the training captions' words.
    """

    prompts: tuple[str, ...] = ()
    tokenizer: Any = None

    @classmethod
    def of(cls, data: Samples) -> TextImages:
        """The modality of a data set with captions, whose text encoder is to be trained too."""
        from genkit.networks.text import tokens_of, word_tokenizer

        latent = tuple(data.x_0.shape[1:])
        if len(latent) != 3 or latent[1] != latent[2]:
            raise ValueError(f"{data.name} has samples {latent}; pictures must be (c, size, size)")
        tokenizer = word_tokenizer(data.captions)
        none = {"tokens": tokens_of(tokenizer, [""])}
        return cls(data.name, latent, none, kind="x_0", prompts=data.captions, tokenizer=tokenizer)

    def _tokens(self, prompts: tuple[str, ...]) -> Tensor:
        from genkit.networks.text import tokens_of

        return tokens_of(self.tokenizer, prompts)

    def cond(self, n: int) -> dict[str, Tensor]:
        place = torch.arange(n) % len(self.prompts)
        return {"tokens": self._tokens(self.prompts[:n])[place]}

    def batches(self, data: Samples) -> dict[str, Any]:
        return {"x_0": data.x_0, "cond": {"tokens": self._tokens(data.captions)}}

    def network(self) -> Any:
        from genkit.networks.text import PromptedNetwork, text_encoder, text_transformer

        channels, size, _ = self.latent
        return PromptedNetwork(text_encoder(len(self.tokenizer)), text_transformer(channels, size))

    def pipeline(self, network: Any, scheduler: Any) -> Any:
        from genkit_pipelines.image.text_to_image import TextToImagePipeline

        return TextToImagePipeline(self.tokenizer, network.text_encoder, network.network, scheduler)

    def generate(
        self,
        pipeline: Any,
        cond: Cond,
        generators: list[torch.Generator],
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        return pipeline(
            prompt_embeds=pipeline.embed(cond["tokens"]),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="latent",
        ).images

    def render(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        return write_sheet(rows, stem)
