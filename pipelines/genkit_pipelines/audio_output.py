"""What genkit's pipelines of sound return: diffusers' AudioPipelineOutput and what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers.pipelines.pipeline_utils import AudioPipelineOutput
from torch import Tensor

Span = tuple[str, float, float]  # a symbol, and the seconds at which it begins and ends


@dataclass
class AudioOutput(AudioPipelineOutput):
    """audios (b, channels, samples), zero beyond a sound's own length.

    sample_rate: Hz. lengths (b,) int64: each sound's samples. alignment: for each sound what is
    said when; None where nothing is said.
    """

    audios: Any
    sample_rate: int = 0
    lengths: Tensor | None = None
    alignment: list[list[Span]] | None = None


@dataclass(frozen=True)
class AudioChunk:
    """A piece of a stream: samples (channels, n) that begin at start_in_s."""

    samples: Tensor
    sample_rate: int
    start_in_s: float
    is_last: bool
