"""Time of a pipeline call against the bare sampling loop: python scripts/bench_pipeline.py

The digits' network (MLPDenoiser, its default size), batch 64, fp32, at 1 and at 50 steps, on one
thread. CPU time, in turns, and the least of each: a busy machine disturbs that little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from genkit import hub
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import RectifiedFlow
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler, sample
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

BATCH = 64


@dataclass(frozen=True)
class Cost:
    """Least CPU seconds of the bare loop, and what the least of a pipeline call is above it."""

    bare: float
    extra: float

    @property
    def share(self) -> float:
        """Extra time as a share of the bare loop's."""
        return self.extra / self.bare

    @property
    def extra_ms(self) -> float:
        """Extra time in milliseconds."""
        return 1000 * self.extra


def _seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


@torch.no_grad()
def measure(steps: int, repeats: int = 10) -> Cost:
    """Cost of a call with per-sample generators, output_type "latent", over the same loop bare."""
    network = MLPDenoiser().eval()
    scheduler = hub.make_scheduler(Sampler(steps), RectifiedFlow(), "velocity", 1000.0)
    pipeline = ClassConditionalImagePipeline(network, scheduler)
    labels = [i % 10 for i in range(BATCH)]

    def bare() -> torch.Tensor:
        generators = sample_generators(0, BATCH)
        noise, label = sample_noise((1, 8, 8), generators), torch.tensor(labels)
        return sample(lambda x, t: network(x, t, label), scheduler, noise, steps, generators)

    def call() -> torch.Tensor:
        generators = sample_generators(0, BATCH)
        return pipeline(labels, steps, generator=generators, output_type="latent").images

    assert torch.equal(bare(), call())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pairs = [(_seconds(bare), _seconds(call)) for _ in range(repeats)]
    torch.set_num_threads(threads)
    least, called = (min(column) for column in zip(*pairs, strict=True))
    return Cost(least, called - least)


def main() -> None:
    """Print one line per number of steps."""
    for steps in (1, 50):
        cost = measure(steps)
        print(
            f"{steps:3d} steps, batch {BATCH}: bare loop {1000 * cost.bare:.1f} ms, the pipeline "
            f"adds {cost.extra_ms:.2f} ms ({cost.share:.1%})"
        )


if __name__ == "__main__":
    main()
