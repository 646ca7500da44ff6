"""Fixed-seed samples of the student beside a reference, again and again through a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genkit.guidance import Cond
from genkit.rng import sample_generators, sample_noise


@dataclass
class Preview:
    """What is sampled in every preview.

    n: number of samples. cond: their conditions, n rows each; several rows of one condition let
    constant output be told from output that follows its condition. seed: of `sample_generators`, so
    the samples equal those of a pipeline given the same. steps: None for the trained number.
    reference: (n, ...) samples to compare with, the teacher's on the same noise, or real data.
    render({name: samples}, stem) writes a file beside `stem` with its own suffix and returns it.
    """

    n: int
    cond: Cond
    seed: int
    render: Callable[[Mapping[str, Tensor], Path], Path]
    steps: int | None = None
    reference: Tensor | None = None
    reference_name: str = "teacher"

    def draw(self, latent: tuple[int, ...]) -> tuple[Tensor, list[torch.Generator]]:
        """(unit Gaussian noise (n, *latent), the generators as they stand after it)."""
        generators = sample_generators(self.seed, self.n)
        return sample_noise(latent, generators), generators

    def write(self, student: Tensor, folder: Path, step: int) -> Path:
        """Render the student's samples, the reference first where there is one."""
        folder.mkdir(exist_ok=True)
        rows = {} if self.reference is None else {self.reference_name: self.reference.cpu()}
        return self.render({**rows, "student": student.cpu()}, folder / f"step-{step:08d}")
