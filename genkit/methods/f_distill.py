"""f-distill: DMD2 for any f-divergence, each sample's gradient weighed by its density ratio.

Xu, Nie and Vahdat 2025 (arXiv 2502.15681). The gradient of D_f(teacher | student) is DMD's times
h(r) = r^2 f''(r), r = teacher / student at x_t; r is exp(logit) of the head, whose positive class
is real data. Ratios are clamped and divided by a running mean of their noise level (E[r] = 1 in
theory), and weights by their mean. Faithful to the authors' released code but for: bins are equal
on the path's own clock, not in t (on EDM nearly all would fall in the first); the head reads the
fake network's features, as in DMD2 (`--critic teacher` is the release's); the ratio's head
and the GAN term see their own draws of t. Else it is genkit's DMD2, with its regression stage.
With a guided teacher the score is not that of the density the head sees, so r and the score
difference disagree; the release has it so too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genkit import terms
from genkit.guidance import Cond
from genkit.methods import dmd2
from genkit.methods.base import Roles

LARGEST_LOGIT = 10.0


Name = Literal[
    "reverse_kl",
    "forward_kl",
    "js",
    "softened_rkl",
    "jeffreys",
    "hellinger",
    "neyman",
    "pearson",
]


@dataclass
class Ratios:
    """Settings of the density ratio that a head's logits give."""

    bins: int = 10
    """Noise levels, equal on the path's clock, of which each has its mean ratio."""
    ratio_memory: float = 0.5
    """Share of a bin's old mean ratio that is kept at each turn; 0 takes the batch's alone."""
    ratio_low: float = 0.1
    """Least density ratio that is believed; where its gradient counts, none beyond has any."""
    ratio_high: float = 20.0
    """Largest density ratio that is believed."""


class Method(dmd2.Method):
    family = "distribution"
    paper = "arXiv 2502.15681"
    needs = ("data", "pairs")
    framewise = False

    @dataclass
    class Config(Ratios, dmd2.Method.Config):
        divergence: Name = "js"
        """Which divergence of teacher and student is lessened; reverse_kl is plain DMD2."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if not config.adversarial > 0:
            raise ValueError(
                f"adversarial is {config.adversarial}; {self.name} takes its density ratio from "
                "the GAN's head: give more than 0, or use dmd2 or sid"
            )
        if config.divergence not in terms.DIVERGENCES:
            raise ValueError(
                f"no divergence is called {config.divergence!r}; choose one of "
                f"{', '.join(terms.DIVERGENCES)}"
            )
        if config.bins < 1:
            raise ValueError(f"bins is {config.bins}; give at least 1")
        self.mean_ratio = torch.ones(config.bins, dtype=torch.float64)

    def _matching(
        self, roles: Roles, x_0: Tensor, x_t: Tensor, t: Tensor, cond: Cond, mask: Tensor | None
    ) -> Tensor:
        with torch.no_grad():
            teacher = roles["teacher"].predict(x_t, t, cond, "x_0")
            logits, fake = self._logits_and_fake(roles, x_t, t, cond)
            weight = self.weight(logits, t)
        return terms.distribution_matching(x_0, teacher, fake, weight, mask, self.config.normaliser)

    def _logits_and_fake(self, roles: Roles, x_t: Tensor, t: Tensor, cond: Cond):
        """The head's logits and the fake's x_0, from one forward where it is the fake's features
        that the head reads."""
        logits, velocity = self._logits(roles, x_t, t, cond)
        if self.config.critic != "fake":
            return logits, roles["fake"].predict(x_t, t, cond, "x_0")
        return logits, self.path.convert(velocity, x_t, t, "velocity", "x_0")

    def weight(self, logits: Tensor, t: Tensor) -> Tensor:
        """h(r) / mean h, (b,), from the head's logits (b, heads) at t (b,); updates the bins."""
        h = terms.DIVERGENCES[self.config.divergence].weight(self.ratio(logits, t))
        total = _summed(torch.stack([h.sum(), h.new_tensor(float(len(h)))]))
        return h / (total[0] / total[1])

    def ratio(self, logits: Tensor, t: Tensor) -> Tensor:
        """The density ratio teacher / student (b,), float64, of the head's logits (b, heads) at t
        (b,), differentiable in them where it is believed; updates the bins."""
        ratio = torch.exp(logits.double().mean(1).clamp(-LARGEST_LOGIT, LARGEST_LOGIT))
        ratio = ratio.clamp(self.config.ratio_low, self.config.ratio_high)
        return ratio / self._means(ratio.detach(), t)

    def _means(self, ratio: Tensor, t: Tensor) -> Tensor:
        """The running mean ratio of each sample's bin, this batch's included."""
        edges = self.path.time(torch.linspace(0, 1, self.config.bins + 1, dtype=torch.float64))
        index = torch.bucketize(t.double(), edges[1:-1].to(t.device))
        sums = ratio.new_zeros(2, self.config.bins)
        sums[0].index_add_(0, index, ratio)
        sums[1].index_add_(0, index, torch.ones_like(ratio))
        total, count = _summed(sums)
        old, keep = self.mean_ratio.to(ratio.device), self.config.ratio_memory
        new = keep * old + (1 - keep) * total / count.clamp(min=1)
        means = torch.where(count > 0, new, old)
        self.mean_ratio = means.cpu()
        return means[index]

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean_ratio": self.mean_ratio}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.mean_ratio = state["mean_ratio"].double().cpu()


def _summed(values: Tensor) -> Tensor:
    """The sum over all processes, where there are several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values
