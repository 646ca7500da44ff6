"""What is seen of a student while it trains: previews, health, distance, the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond
from genkit.methods.base import Method
from genkit.sampling import Generators
from genkit.training.checkpoints import Checkpoints
from genkit.training.health import Collapse, Health
from genkit.training.preview import Preview
from genkit.training.roles import Networks


class Sample(Protocol):
    """Samples of the student as it would be delivered now, from unit noise (b, ...)."""

    def __call__(
        self, noise: Tensor, cond: Cond, generator: Generators = None, steps: int | None = None
    ) -> Tensor: ...


# That function -> named figures; "distance" among them, lower is better.
Measure = Callable[[Sample], Mapping[str, float]]


class Watch:
    """Looks at the student's export average, in the main process.

    best: {"step", "distance"} of the best student measured, whose weights are kept. steps: those
    of the stage, for previews that name none.
    """

    def __init__(
        self,
        method: Method,
        networks: Networks,
        checkpoints: Checkpoints,
        preview: Preview | None,
        measure: Measure | None,
        samples: Path,
    ) -> None:
        self.method, self.networks, self.checkpoints = method, networks, checkpoints
        self.preview, self.measure, self.samples = preview, measure, samples
        self.health = preview and Health(preview.reference, preview.cond, preview.n)
        self.best: dict[str, Any] | None = None
        self.steps: int | None = None

    def sample(
        self, noise: Tensor, cond: Cond, generator: Generators = None, steps: int | None = None
    ) -> Tensor:
        """Samples (b, ...) on the CPU, in float32, whatever the precision of training."""
        student, device = self.networks.exported("student"), self.networks.device
        assert isinstance(student, Denoiser)
        training = student.training
        student.eval()
        moved = {name: value.to(device) for name, value in cond.items()}
        x_0 = self.method.sample(student, noise.to(device), moved, steps, generator)
        student.train(training)
        return x_0.cpu()

    def _previewed(self, preview: Preview) -> Tensor:
        noise, generators = preview.draw(self.method.latent)
        noise = self.method.path.prior(noise)
        return self.sample(noise, preview.cond, generators, preview.steps or self.steps)

    def begin_stage(self) -> None:
        """Remember how the student starts, to judge it by."""
        if self.preview is not None and self.health is not None:
            self.health.start(self._previewed(self.preview))

    def look(
        self, step: int, progress: float, measured: bool, shown: bool, taken: int
    ) -> dict[str, float]:
        """Show the samples, judge them, measure the distance; figures for the log. taken: steps of
        the stage so far.

        Collapse, before anything is kept, if the samples are bad at this share of the stage.
        """
        figures: dict[str, float] = {}
        if self.preview is not None and self.health is not None:
            student = self._previewed(self.preview)
            if shown:
                self.preview.write(student, self.samples, step)
            figures |= self.health.judge(student, progress, taken)
        if measured and self.measure is not None:
            figures |= {key: float(value) for key, value in self.measure(self.sample).items()}
            self._keep_best(step, figures["distance"])
        return figures

    def _keep_best(self, step: int, distance: float) -> None:
        if not math.isfinite(distance):
            raise Collapse(f"the measured distance is {distance}")
        if self.best is None or distance < self.best["distance"]:
            self.checkpoints.save_best(step, self.networks.export_tensors(), distance)
            self.best = {"step": step, "distance": distance}

    def delivered(self) -> dict[str, torch.nn.Module]:
        """The parts of the pipeline, of the best student, or of the last where none is best."""
        best = None if self.best is None else self.checkpoints.load_best(self.best["step"])
        return self.method.deliver(self.networks.export_modules(best))

    def state(self) -> dict[str, Any]:
        """What must be remembered over a resume."""
        return {"best": self.best, "health": self.health.state() if self.health else None}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back `state`."""
        self.best = state["best"]
        if self.health is not None:
            self.health.load(state["health"])
