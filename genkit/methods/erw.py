"""ERW: a teacher whose first blocks are warmed up on frozen features before it learns to denoise.

Liu et al. 2025 (arXiv 2504.10188). Stage "warm-up" trains the first blocks alone, on clean samples
at t = 0, to agree with a frozen feature network (cosine, through a small projector); stage "train"
is flow matching of the whole, with the agreement of a middle block at a weight that halves again
and again, as in REPA (arXiv 2410.06940). Faithful in these and in the weights; the loss is the mean
over samples (the released warm-up counts the last of a batch alone). Choices of ours: the features
are histograms of oriented gradients unless --representation names a DINOv2 (theirs), as they need
no download; tokens are brought to the block's grid by averaging; the shares of depth and of time
are the paper's (4 and 14 of 28 blocks, 100k of 300k steps, half-life 50k of 200k).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genkit import guidance, terms
from genkit.denoisers.base import Denoiser
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.networks.head import blocks
from genkit.networks.representation import HOG, Projector, on_grid, representation
from genkit.rng import Rng
from genkit.sampling import Sampler
from genkit.times import TIMES


class Method(base.Method):
    family = "teacher"
    paper = "arXiv 2504.10188"
    needs = ("data",)
    has_teacher = False

    @dataclass
    class Config(base.Config):
        lr: float = 1e-3
        """Learning rate at the start of each stage, decayed to 0."""
        warmup: int = 100
        representation: str = HOG
        """Frozen features: hog, or the folder or hub id of a DINOv2."""
        warmup_share: float = 0.33
        """Share of the steps spent on the first blocks alone."""
        early: float = 0.14
        """Share of the blocks that are warmed up, at least one."""
        middle: float = 0.5
        """Share of the blocks after which the features agree in the main stage."""
        agreement: float = 0.5
        """Weight of the agreement in the warm-up."""
        agreement_later: float = 1.0
        """Weight at the start of the main stage (the paper: 1, 3 and 6 for larger networks)."""
        half_life: float = 0.25
        """Share of the main stage in which that weight halves."""
        time: str = "uniform"
        """Distribution of t: a name of genkit.times."""
        drop: float = 0.1
        """Share of samples trained without their condition, for guidance."""
        steps: int = 50
        """Evaluations the delivered pipeline takes by default."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if not 0 < config.warmup_share < 1:
            raise ValueError(
                f"warmup_share is {config.warmup_share}; give a share between 0 and 1, or use "
                "flow_matching, which has no warm-up"
            )
        for name in ("early", "middle"):
            if not 0 < getattr(config, name) <= 1:
                raise ValueError(f"{name} is {getattr(config, name)}; give a share of the blocks")
        if not config.half_life > 0:
            raise ValueError(f"half_life is {config.half_life}; give a share above 0")

    def stages(self) -> list[Stage]:
        share = self.config.warmup_share
        return [Stage("warm-up", share), Stage("train", 1 - share, fresh_optimizer=True)]

    def nets(self) -> dict[str, Role]:
        config = self.config
        frozen = Role(build=lambda _: representation(config.representation), trainable=False)
        projector = Role(build=self._projector, lr=config.lr, warmup=config.warmup, decay=True)
        return {"student": self.student(), "features": frozen, "projector": projector}

    def _projector(self, given: Mapping[str, nn.Module]) -> nn.Module:
        student = given["student"]
        assert isinstance(student, Denoiser)
        name, (x, t, cond) = self.block(student, self.config.early), self.blank(student)
        with torch.no_grad():
            _, traced = student.trace(x, t, cond, student.kind, (name,), name)
        return Projector(traced[name].shape[-1], given["features"](self.decode(x)).shape[-1])

    def block(self, student: nn.Module, share: float) -> str:
        """The name of the block at this share of the network's depth."""
        names = blocks(student)
        return names[max(1, round(share * len(names))) - 1]

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        return [("student", "projector")]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        config, data, student = self.config, batch["data"], roles["student"]
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        if config.drop and self.uncond is not None:
            cond = guidance.drop(cond, self.uncond, config.drop, rng)
        with torch.no_grad():
            wanted = roles["features"](self.decode(x_0))
        if moment.stage.name == "warm-up":
            name, clean = self.block(student, config.early), torch.zeros_like(x_0.flatten(1)[:, 0])
            _, traced = student.trace(x_0, clean, cond, student.kind, (name,), name)
            apart = self.disagreement(roles["projector"](traced[name]), wanted).mean()
            return {"total": config.agreement * apart, "agreement": apart}
        eps, name = self.path.noise(x_0.shape, rng), self.block(student, config.middle)
        # Not 0: the velocity of a prediction of x_0 divides by sigma.
        t = TIMES[config.time](self.path, x_0.shape[:1], rng).clamp(min=1e-4)
        x_t = self.path.add_noise(x_0, eps, t)
        velocity, traced = student.trace(x_t, t, cond, "velocity", (name,))
        flow = terms.flow_matching(velocity, x_0, eps, self.path, t, mask, student.kind).mean()
        apart = self.disagreement(roles["projector"](traced[name]), wanted).mean()
        total = flow + self.weight(moment) * apart
        return {"total": total, "flow": flow, "agreement": apart}

    def weight(self, moment: Moment) -> float:
        """c_0 2^(-s / half-life) of the agreement at this step of the main stage."""
        halves = moment.step / (self.config.half_life * moment.steps)
        return self.config.agreement_later * 2**-halves

    def disagreement(self, projected: Tensor, wanted: Tensor) -> Tensor:
        """-cos of tokens (b, n, d) to the frozen ones (b, m, d), mean over tokens, (b,)."""
        near = F.cosine_similarity(projected.float(), on_grid(wanted, projected.shape[1]), dim=-1)
        return -terms.mean(near)

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)
