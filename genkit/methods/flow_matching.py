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
    presets = {
        "digits": {
            "max_steps": 12_000,
            "weight_decay": 0.01,
            "mixed_precision": "bf16",
            "sample_every": 2000,
            "measure_every": 1000,
            "checkpoint_every": 1000,
        },
        # Untuned: about 50 minutes on one core, by a step's time; no run so long has been made.
        # Forced half of the time, as sampling is, which takes twice as long.
        "world": {
            "max_steps": 2_000,
            "batch_size": 8,
            "warmup": 200,
            "muon": r"blocks\.",
            "drop": 0.0,
            "forced": 0.5,
            "steps": 20,
            "mixed_precision": "bf16",
            "sample_every": 1000,
            "measure_every": 0,
            "evaluate_n": 64,
            "evaluate_seeds": (0,),
            "evaluate_steps": (1, 2, 4, 16),
        },
        # A transformer of 4M parameters. Chosen on runs of 1,500 steps: Muon does in 1,500 what
        # AdamW does in 3,300, and 2e-3 is better than 1e-3. At that rate the text encoder forgets
        # the order of words before the network has a use for it; at a tenth it does not. No
        # measuring: the distance of few samples is noisier than what the last tenth changes.
        "emoji-scenes": {
            "max_steps": 8_000,
            "batch_size": 64,
            "lr": 2e-3,
            "warmup": 300,
            "weight_decay": 0.01,
            "ema": 0.999,
            "time": "shifted",
            "muon": r"blocks?\.",
            "slow": r"text_encoder\.",
            "mixed_precision": "bf16",
            "sample_every": 1000,
            "measure_every": 0,
            "checkpoint_every": 500,
        },
    }

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
        x_0, cond = batch["data"]["x_0"], batch["data"]["cond"]
        if self.config.drop and self.uncond is not None:
            cond = guidance.drop(cond, self.uncond, self.config.drop, rng)
        student, mask = roles["student"], batch["data"].get("mask")
        eps = self.path.noise(x_0.shape, rng)
        # Not 0: the velocity of a prediction of x_0 divides by sigma.
        times = TIMES[self.config.time](self.path, x_0.shape[: self.levels], rng)
        t = times.clamp(min=1e-4)
        x_t = self.path.add_noise(x_0, eps, t)
        if self.config.forced and rng.integer(0, 1000) < 1000 * self.config.forced:
            cond = student.given(x_0, cond, eps)
        velocity = student.predict(x_t, t, cond, "velocity")
        loss = terms.flow_matching(
            velocity, x_0, eps, self.path, t, mask, student.kind, self.config.floor
        )
        return {"total": loss.mean()}

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)
