"""Flow matching: trains a teacher from data by regressing the velocity of a probability path.

Lipman et al. 2022 (arXiv 2210.02747, eq. 9), Liu et al. 2022 (arXiv 2209.03003, eq. 1). Faithful;
any path can be used, a share of the conditions is dropped so that guidance is possible, and noise
may be PFGM++'s (Xu et al. 2023, arXiv 2302.04265), for which the loss and the ODE are the same.
Frames of a sequence that have their own noise levels get independent ones (arXiv 2407.01392).
"""

from __future__ import annotations

from dataclasses import dataclass

from genkit import guidance, terms
from genkit.denoisers.base import Denoiser, NetworkDenoiser
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Roles
from genkit.paths import RectifiedFlow
from genkit.rng import Rng
from genkit.sampling import Sampler
from genkit.times import TIMES


class Method(base.Method):
    family = "teacher"
    paper = "arXiv 2210.02747"
    needs = ("data",)
    has_teacher = False
    framewise = True

    @dataclass
    class Config(base.Config):
        warmup: int = 100
        time: str = "uniform"
        """Distribution of t: a name of genkit.times."""
        floor: float = 0.05
        """For a network that predicts x_0, whose velocity divides by sigma: the sigma below which
        the loss weighs no more (JiT, arXiv 2511.13720, sec. 4)."""
        drop: float = 0.1
        """Share of samples trained without their condition, for guidance."""
        forced: float = 0.0
        """For sequences: the share of batches in which a frame sees the others clean, as it does
        when it is sampled, instead of noised like itself."""
        alone: float = 0.0
        """For sequences: the share of batches of which every frame is a first one."""
        steps: int = 50
        """Evaluations the delivered pipeline takes by default."""
        dimensions: float | None = None
        """D of PFGM++'s heavy-tailed noise; by default it is Gaussian, as for D without end."""

    @classmethod
    def fresh(cls, config: Config, bare: NetworkDenoiser) -> Denoiser:
        if config.dimensions is None:
            return bare
        flow = RectifiedFlow(config.dimensions)
        return NetworkDenoiser(bare.network, bare.call, flow, bare.kind, bare.time_scale)

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data = self.first_frames(batch["data"], self.config.alone, rng)
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        if self.config.drop and self.uncond is not None:
            cond = guidance.drop(cond, self.uncond, self.config.drop, rng)
        student = roles["student"]
        eps = self.path.noise(x_0.shape, rng)
        # Not 0: the velocity of a prediction of x_0 divides by sigma.
        times = TIMES[self.config.time](self.path, x_0.shape[: self.levels], rng)
        t = times.clamp(min=1e-4)
        x_t = self.path.add_noise(x_0, eps, t)
        if rng.chance(self.config.forced):
            cond = student.given(x_0, cond, eps)
        velocity = student.predict(x_t, t, cond, "velocity")
        loss = terms.flow_matching(
            velocity, x_0, eps, self.path, t, mask, student.kind, self.config.floor
        )
        return {"total": loss.mean()}

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)
