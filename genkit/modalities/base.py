"""Modality is data: what a run must know of its samples that trainer and methods must not.

The shape of a sample, its conditions, which network learns it, how a pipeline of it is built and
called, how it is shown and measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genkit import terms
from genkit.data.base import Samples
from genkit.guidance import Cond
from genkit.paths import Kind, RectifiedFlow
from genkit.paths import Path as ProbabilityPath

if TYPE_CHECKING:
    from genkit.metrics import Reference


@dataclass(frozen=True)
class Modality(ABC):
    """name: of the data set. latent: shape of one sample, without the batch. uncond: the conditions
    of no condition, batch 1, where there are such. distance: per sample. kind, path, time_scale: of
    a fresh network, which predicts `kind` on `path` and is told time_scale times t."""

    name: str
    latent: tuple[int, ...]
    uncond: Cond | None
    distance: terms.Distance = terms.squared
    kind: Kind = "velocity"
    path: ProbabilityPath = field(default_factory=RectifiedFlow)
    time_scale: float = 1000.0

    @abstractmethod
    def asked(self, n: int) -> Any:
        """What n samples of an evaluation are asked to be, in a person's terms (labels, prompts):
        in a sequence or
        tensor: always the same ones, and the first of them for any smaller n."""

    @abstractmethod
    def cond(self, n: int) -> dict[str, Tensor]:
        """The conditions of `asked(n)`; measurements during training are made with them."""

    @property
    def preview_n(self) -> int:
        """Samples in a preview."""
        return 20

    def preview_cond(self) -> dict[str, Tensor]:
        """Conditions of a preview; some are equal, so that constant output can be seen."""
        return self.cond(self.preview_n)

    def training_cond(self, n: int) -> Mapping[str, Any]:
        """Conditions of n samples that a teacher makes for training."""
        return self.cond(n)

    def latents(self, data: Samples) -> Tensor:
        """What is learned of a data set, (m, *latent); here its samples are that already."""
        return data.x_0

    def batches(self, data: Samples) -> dict[str, Any]:
        """A data set as training reads it: {"x_0": (m, *latent), "cond": {name: (m, ...)}}, and
        "mask", 1 where a sample is, for samples of different sizes, or is to be learned."""
        read = {"x_0": self.latents(data), "cond": dict(data.cond)}
        return read if data.mask is None else read | {"mask": data.mask}

    def mask(self, cond: Mapping[str, Any]) -> Any | None:
        """Where the samples of these conditions are, (n, ...) of a prefix of their shape; None
        where they fill it."""
        return None

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
        asked: Any,
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
    ) -> Tensor:
        """Raw samples (n, *latent) of what is asked, by a pipeline's own `__call__`."""

    @abstractmethod
    def render(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        """Write rows of samples {label: (n, *latent)}, one above the other, into a file named
        `stem` and the suffix of what it is; returns the file."""

    def picture(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        """As `render`, and always a picture."""
        return self.render(rows, stem)

    def further(self, pipeline: Any, steps: int, seed: int) -> dict[str, float]:
        """Figures of samples that are made otherwise than `generate` does: of one that goes on from
        a true beginning, or of a long one, where something may wear out over its length."""
        return {}

    def decode(self, latent: Tensor) -> Tensor:
        """Raw samples as what figures are measured on; here they are that already."""
        return latent

    def decode_for_loss(self, latent: Tensor) -> Tensor:
        """As `decode`, with gradient, wherever `latent` is."""
        return latent

    def decoded_by(self, folder: str) -> Modality:
        """This modality with the decoder in `folder`; ValueError where samples need none."""
        raise ValueError(f"{self.name} needs no decoder; leave it out")

    def has_reference(self) -> bool:
        """Whether there are figures of this data set."""
        from genkit.metrics.references import REFERENCES

        return self.name in REFERENCES

    def reference(self, split: str = "test") -> Reference:
        """What samples are measured against; ValueError where the data set has no figures yet."""
        from genkit.metrics import reference

        return reference(self.name, split)


def square(data: Samples) -> tuple[int, ...]:
    """(c, size, size) of a data set of pictures; ValueError for samples of another shape."""
    latent = tuple(data.x_0.shape[1:])
    if len(latent) != 3 or latent[1] != latent[2]:
        raise ValueError(f"{data.name} has samples {latent}; pictures must be (c, size, size)")
    return latent
