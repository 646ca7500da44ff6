"""Small square pictures with a class label each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit.data.base import Samples
from genkit.modalities.base import Modality, square
from genkit.modalities.sheet import write_sheet


@dataclass(frozen=True)
class ClassImages(Modality):
    """Pictures (c, s, s) in [-1, 1], each of a class."""

    num_classes: int = 10

    @classmethod
    def of(cls, data: Samples) -> ClassImages:
        """The modality of a data set of pictures with labels."""
        latent = square(data)
        none = {"label": torch.tensor([data.num_classes])}
        return cls(data.name, latent, none, num_classes=data.num_classes)

    def asked(self, n: int) -> Tensor:
        return torch.arange(n) % self.num_classes

    def cond(self, n: int) -> dict[str, Tensor]:
        return {"label": self.asked(n)}

    def network(self) -> Any:
        from genkit.networks.mlp import MLPDenoiser

        channels, size, _ = self.latent
        return MLPDenoiser(channels, size, num_classes=self.num_classes)

    def pipeline(self, network: Any, scheduler: Any) -> Any:
        from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

        return ClassConditionalImagePipeline(network, scheduler)

    def generate(
        self,
        pipeline: Any,
        asked: Any,
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
    ) -> Tensor:
        return pipeline(
            class_labels=[int(label) for label in asked],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="latent",
        ).images

    def render(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        return write_sheet(rows, stem)


def labels(prompt: str | None, num_classes: int) -> list[int]:
    """Class labels of a prompt such as "3" or "3,5"; None is every class once."""
    if prompt is None:
        return list(range(num_classes))
    try:
        wanted = [int(part) for part in prompt.split(",")]
    except ValueError:
        raise ValueError(
            f'the prompt {prompt!r} is no list of classes; give for instance "3" or "3,5"'
        ) from None
    wrong = [label for label in wanted if not 0 <= label < num_classes]
    if wrong:
        raise ValueError(f"there is no class {wrong[0]}; classes run from 0 to {num_classes - 1}")
    return wanted
