"""Modality is data: what a run must know of its samples that trainer and methods must not.

The shape of a sample, its conditions, which network learns it, how a pipeline of it is built and
called, how it is shown and measured. A kind of data set is recognised by the names of its
conditions; a new kind is one class here and one row of KINDS.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genkit import terms
from genkit.data.base import Samples
from genkit.guidance import Cond

if TYPE_CHECKING:
    from genkit.metrics import Reference

TILE = 48  # pixels a shown sample has at least, on its longer side


@dataclass(frozen=True)
class Modality(ABC):
    """name: of the data set. latent: shape of one sample, without the batch. uncond: the conditions
    of no condition, batch 1; its keys are the names of the conditions. distance: per sample."""

    name: str
    latent: tuple[int, ...]
    uncond: Cond
    distance: terms.Distance = terms.squared

    @abstractmethod
    def cond(self, n: int) -> dict[str, Tensor]:
        """Conditions of n samples, always the same ones, and the first of them for any smaller n;
        pairs, previews and evaluations are made with them."""

    @property
    def preview_n(self) -> int:
        """Samples in a preview; some share a condition, so that constant output can be seen."""
        return 20

    @abstractmethod
    def network(self) -> Any:
        """A fresh network for this data, as a teacher begins."""

    @abstractmethod
    def pipeline(self, network: Any, scheduler: Any) -> Any:
        """The diffusers pipeline of a network and the scheduler that samples it."""

    @abstractmethod
    def generate(
        self,
        pipeline: Any,
        cond: Cond,
        generators: list[torch.Generator],
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """Raw samples (n, *latent) of a pipeline, by its own `__call__`; None: as trained."""

    @abstractmethod
    def render(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        """Write rows of samples {label: (n, *latent)}, one above the other, into a file named
        `stem` and the suffix of what it is; returns the file."""

    def decode(self, latent: Tensor) -> Tensor:
        """Raw samples as what figures are measured on; here they are that already."""
        return latent

    def reference(self) -> Reference:
        """What samples are measured against; ValueError where the data set has no figures yet."""
        from genkit.metrics import reference

        return reference(self.name)


@dataclass(frozen=True)
class ClassImages(Modality):
    """Small square pictures (c, s, s) in [-1, 1] with a class label each."""

    num_classes: int = 10

    @classmethod
    def of(cls, data: Samples) -> ClassImages:
        """The modality of a data set of pictures with labels."""
        latent = tuple(data.x_0.shape[1:])
        if len(latent) != 3 or latent[1] != latent[2]:
            raise ValueError(f"{data.name} has samples {latent}; pictures must be (c, size, size)")
        none = {"label": torch.tensor([data.num_classes])}
        return cls(data.name, latent, none, num_classes=data.num_classes)

    def cond(self, n: int) -> dict[str, Tensor]:
        return {"label": torch.arange(n) % self.num_classes}

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
        cond: Cond,
        generators: list[torch.Generator],
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        return pipeline(
            class_labels=cond["label"].tolist(),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="latent",
        ).images

    def render(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        from PIL import Image, ImageDraw

        strips = [(label, _strip(samples)) for label, samples in rows.items()]
        band, width = 14, max(strip.width for _, strip in strips)
        height = sum(band + strip.height for _, strip in strips)
        sheet = Image.new("RGB", (width, height), "white")
        draw, top = ImageDraw.Draw(sheet), 0
        for label, strip in strips:
            draw.text((2, top + 1), label, fill="black")
            sheet.paste(strip, (0, top + band))
            top += band + strip.height
        file = stem.with_name(stem.name + ".png")
        sheet.save(file)
        return file


def _strip(samples: Tensor) -> Any:
    """Pictures (n, c, s, s) in [-1, 1] side by side, enlarged without smoothing."""
    from PIL import Image

    n, channels, size, _ = samples.shape
    pixels = samples.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round().byte()
    pixels = pixels.expand(n, 3, size, size) if channels == 1 else pixels[:, :3]
    flat = nn.functional.pad(pixels, (0, 1, 0, 0), value=255)  # a gap of one pixel
    flat = flat.permute(2, 0, 3, 1).reshape(size, n * (size + 1), 3)
    scale = -(-TILE // size)
    image = Image.fromarray(flat.numpy())
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


KINDS: dict[tuple[str, ...], Callable[[Samples], Modality]] = {("label",): ClassImages.of}


def modality(data: Samples) -> Modality:
    """The modality of a data set, by the names of its conditions."""
    kind = tuple(sorted(data.cond))
    if kind not in KINDS:
        known = "; ".join(", ".join(each) for each in KINDS)
        raise ValueError(f"{data.name} has the conditions {kind}; known kinds of data: {known}")
    return KINDS[kind](data)


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


def call_arguments(pipeline: Any, prompt: str | None) -> dict[str, Sequence[Any]]:
    """What a prompt typed by a person means to a pipeline: its class labels, or its text."""
    import inspect

    taken = inspect.signature(type(pipeline).__call__).parameters
    if "class_labels" in taken:
        return {"class_labels": labels(prompt, pipeline.network.config.num_classes)}
    if prompt is None:
        raise ValueError(
            f'{type(pipeline).__name__} needs a prompt: genkit generate PIPELINE "..."'
        )
    return {"prompt": [prompt]}
