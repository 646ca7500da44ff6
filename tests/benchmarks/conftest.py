"""A tiny density, and a bench over it, for tests of what benches share."""

import pytest
import torch

from genkit.benchmarks.base import Bench
from genkit.benchmarks.problem import Problem
from genkit.denoisers.analytic import Mixture
from genkit.metrics.sliced import sliced_wasserstein
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import RectifiedFlow


def tiny_problem() -> Problem:
    """Eight pictures of 4 x 4 in two classes."""
    means = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    density = Mixture(RectifiedFlow(), means, 0.15, labels=torch.arange(8) % 2)
    return Problem(
        "tiny",
        density,
        lambda cond, draw: density.draw(len(cond["label"]), draw, cond["label"])[0],
        (1, 4, 4),
        (0, 1),
        2,
        lambda: MLPDenoiser(1, 4, 16, depth=2, num_classes=2),
        batch=16,
    )


class TinyBench(Bench):
    """Distance and spread."""

    aims = {"sw": "less", "spread": "near"}
    n = 200

    def __init__(self) -> None:
        self.problem = tiny_problem()

    def distance(self, x, cond):
        return sliced_wasserstein(x, self.reference, 16)

    def figures(self, x, cond):
        return {"sw": self.distance(x, cond), "spread": float(x.std())}


@pytest.fixture
def problem() -> Problem:
    return tiny_problem()


@pytest.fixture
def tiny(monkeypatch) -> TinyBench:
    """The tiny bench, under the name of a real one."""
    from genkit.benchmarks import methods, ranking

    bench = TinyBench()
    for cached in (methods._bench, methods._start, methods._untrained):
        cached.cache_clear()
    monkeypatch.setattr(methods, "open_bench", lambda name, n=None: bench)
    monkeypatch.setattr(ranking, "aims", lambda name: TinyBench.aims)
    yield bench
    for cached in (methods._bench, methods._start, methods._untrained):
        cached.cache_clear()
