"""Drifting: samples of one step move where data attract them and other samples repel them.

Deng et al. 2026 (arXiv 2602.04770; sections 3, 4 and appendix A were read). No noise level is
learned: the student is asked at pure noise alone. A field V at its samples, the mean shift to data
of the same condition less that to other samples of it (eq. 11, alg. 2), is zero where the
distributions agree; the loss moves each sample along it (eq. 6), as it is and in features (eq. 13),
each of their scale and V's own size taken out (A.6), for several temperatures. With guidance, all
data repel too, however conditioned, so weighed that samples follow alpha p(x|c) - (alpha - 1) p(x),
alpha being `guidance` (A.7).
Faithful in these. Not in: the student begins as the teacher and features are of the frozen
teacher's blocks, where the paper trains from nothing and on a self-supervised encoder's; of a block
they are its tokens, their mean and deviation (A.5 has those of patches too); alpha is one number;
no queue: a condition's data and samples are those of the batch (A.9), on several processes of each
one's part. Data whose conditions hardly ever repeat within a batch, such as prompts, are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genkit import terms
from genkit.guidance import Cond
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Roles, Stage
from genkit.networks.head import blocks
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(base.Method):
    family = "distribution"
    paper = "arXiv 2602.04770"
    needs = ("data",)

    @dataclass
    class Config(base.Distillation):
        lr: float = 3e-4
        """Learning rate at the start, decayed to 0 (the paper's: 2e-4 to 4e-4)."""
        guidance: float | None = None
        """How much data of other conditions repel; by default the teacher's own scale, 1 is off."""
        temperatures: tuple[float, ...] = (0.02, 0.05, 0.2)
        """What is near, in mean distances; one field for each."""
        feature: float = 1.0
        """Weight of the drift in features; 0 leaves it out."""
        features: tuple[str, ...] = ()
        """Submodules of the teacher whose outputs those are; empty: all its blocks."""
        level: float = 0.3
        """How noisy what the teacher takes features of is, on the path's clock from 0 to 1."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if not config.temperatures or min(config.temperatures) <= 0:
            raise ValueError(f"temperatures are {config.temperatures}; give numbers above 0")
        if self.guidance < 1:
            raise ValueError(f"guidance is {self.guidance:g}; drifting takes 1 (off) or more")

    def stages(self) -> list[Stage]:
        return [Stage("train")]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        x_0, cond = batch["data"]["x_0"], batch["data"]["cond"]
        eps, rows = self.path.noise(x_0.shape, rng), self.grouped(cond, len(x_0))
        made = self.at_once(roles["student"], {"eps": eps, "cond": cond})
        drift = self.drift(made.flatten(1)[:, None], x_0.flatten(1)[:, None], rows)
        losses = {"plain": drift.mean()}
        losses["total"] = losses["plain"]
        if self.config.feature:
            with torch.no_grad():
                theirs = self._features(roles, x_0, cond, rng)
            ours = self._features(roles, made, cond, rng)
            each = [self.drift(a, b, rows).mean() for a, b in zip(ours, theirs, strict=True)]
            losses["features"] = torch.stack(each).sum()
            losses["total"] = losses["plain"] + self.config.feature * losses["features"]
        return losses

    def grouped(self, cond: Cond, count: int) -> list[Tensor]:
        """The rows (n,) of each condition there is in a batch of `count`."""
        group = torch.zeros(count, dtype=torch.int64)
        for value in cond.values():
            here = torch.unique(value, dim=0, return_inverse=True)[1].cpu()
            group = torch.unique(torch.stack([group, here], 1), dim=0, return_inverse=True)[1]
        rows = [(group == k).nonzero()[:, 0] for k in range(int(group.max()) + 1)]
        if max(len(each) for each in rows) == 1:
            raise ValueError(
                f"no two of a batch's {count} conditions are equal, so nothing repels a sample; "
                "drifting needs data of few conditions, or a larger batch"
            )
        return rows

    def weight(self, n: int, count: int) -> Tensor:
        """How often each point counts for n samples of one condition, (n, 2 n): as many data
        attract, the other samples repel; with guidance (n, 2 n + count), all data of the batch."""
        others = 1 - torch.eye(n)
        parts = [torch.ones(n, n), others]
        if self.guidance > 1:
            parts.append(torch.full((n, count), (self.guidance - 1) * (n - 1) / count))
        return torch.cat(parts, 1)

    def drift(self, made: Tensor, real: Tensor, rows: list[Tensor]) -> Tensor:
        """|f / S - sg(f / S + sum V / rms(V))|^2 per sample (b,) (eq. 26): of f = `made`
        (b, l, d), l vectors a sample, with one field V for each temperature; S and rms are of the
        whole batch."""
        made, real = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (made, real))
        with torch.no_grad():
            parts = []
            for here in rows:
                weight = self.weight(len(here), len(real)).to(made)
                more = [real] if self.guidance > 1 else []
                y = torch.cat([real[here], made[here], *more]).transpose(0, 1)
                parts.append((torch.cdist(made[here].transpose(0, 1), y), y, weight))
            counted = sum(float(weight.sum()) * len(y) for _, y, weight in parts)
            mean = sum((d * weight).sum() for d, _, weight in parts) / counted
            total = torch.zeros_like(made)
            for temperature in self.config.temperatures:
                v = torch.zeros_like(made)
                for here, (distance, y, weight) in zip(rows, parts, strict=True):
                    v[here] = field(distance / (temperature * mean), y, weight).transpose(0, 1)
                total += v / v.square().mean().sqrt().clamp(min=1e-12)
        scaled = made * (made.shape[-1] ** 0.5 / mean)
        return terms.squared(scaled, (scaled + total).detach())

    def _features(self, roles: Roles, x_0: Tensor, cond: Cond, rng: Rng) -> list[Tensor]:
        """[(b, vectors, d)] of what the teacher's blocks make of x_0, a little noised."""
        judge = roles["teacher"].unguided
        names = self.config.features or blocks(judge)
        t = self.path.time(torch.full(x_0.shape[:1], self.config.level, device=x_0.device))
        x_t = self.path.add_noise(x_0, self.path.noise(x_0.shape, rng), t)
        found: list[Tensor] = []
        for each in judge.trace(x_t, t, cond, judge.kind, names)[1].values():
            found.append(each)
            if each.shape[1] > 1:
                found += [each.mean(1, keepdim=True), each.std(1, keepdim=True)]
        return found

    def sampler(self) -> Sampler:
        return Sampler(steps=1)


def field(distance: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """V (l, n, d), the drift of n samples (alg. 2), by their distances over the temperature
    (l, n, m) to points y (l, m, d), of which the first n attract and the rest repel; weight (n, m):
    how often each point counts for each sample."""
    near, n = torch.where(weight > 0, -distance, -torch.inf), distance.shape[1]
    row = torch.softmax(near + weight.log(), -1)
    # A point that counts for no sample has the same share in all of them, and none after that.
    column = torch.softmax(near.clamp(min=torch.finfo(near.dtype).min), -2)
    # The row is of all a point's copies together, the column of each of them.
    a = torch.sqrt(weight * row * column)
    attracted, repelled = a[..., :n], a[..., n:]
    on_real = attracted * repelled.sum(-1, keepdim=True)
    on_rest = repelled * attracted.sum(-1, keepdim=True)
    return on_real @ y[:, :n] - on_rest @ y[:, n:]
