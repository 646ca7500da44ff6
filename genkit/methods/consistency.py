"""Consistency distillation and training: f(x_t, t) = f(x_s, s) along the ODE, f = x_0 at t_min.

Four recipes. "cd" (Song et al. 2023, arXiv 2303.01469, alg. 2): neighbouring times of a grid, one
Euler or Heun step of the teacher between them, an EMA copy as the target. "ct" (their alg. 3): the
same noise on data at both times instead of a teacher, with their N(k) and mu(k) (appendix C). "ict"
(Song & Dhariwal 2023, arXiv 2310.14189): no average in the target, times log-normal over the grid,
N doubling, weight 1 / (sigma_t - sigma_s), pseudo-Huber. "ect" (Geng et al. 2024, arXiv
2406.14548): log-normal t of no grid, and s = r(t), which nears t as training goes on.
Not faithful: grids are uniform on the path's own clock (on EDM that is theirs), and N doubles for
"cd" too; sigma is sigma / alpha, at most 80, on other paths; f has no skip connection: at t_min the
target is x_0 itself, whatever the network; the distance of "cd" and "ct" is the modality's instead
of LPIPS; the weights of "ict" and its times are from memory of the paper; all begin at the teacher.
Frames of a sequence that have their own noise levels are moved each on its own ODE, given the true
frames before it ("cd" and "ct").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from genkit import terms, times
from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond
from genkit.methods import base
from genkit.methods.base import Batch, Ema, Losses, Moment, Role, Roles, Stage, warmed
from genkit.paths import expand
from genkit.rng import Rng
from genkit.sampling import Sampler

LARGEST_SIGMA = 80.0  # EDM's; on other paths sigma / alpha has no end


class Method(base.Method):
    family = "consistency"
    paper = "arXiv 2303.01469"
    needs = ("data",)
    any_steps = True
    framewise = True

    @dataclass
    class Config(base.Distillation):
        target_ema: float = 0.95
        """Rate of the target network's average."""
        guidance: float | None = None
        """The teacher's guidance, baked into the student; by default the teacher's own. Recipes
        without a teacher have none."""
        recipe: Literal["cd", "ct", "ict", "ect"] = "cd"
        """Along the teacher's trajectories (cd), or by data alone: consistency training as first
        published (ct), improved (ict) or easy (ect)."""
        solver: Literal["euler", "heun"] = "heun"
        """The teacher's step between neighbouring times."""
        first_intervals: int = 8
        """Intervals of the time grid at the beginning."""
        last_intervals: int = 64
        """Intervals of the time grid at the end (the papers: 40 cd, 150 ct, 1280 ict)."""
        time_mean: float = -1.1
        """Mean of log(sigma / alpha) of the times of ict and ect, drawn from a normal
        distribution."""
        time_std: float = 2.0
        """Its deviation."""
        huber: float = 0.00054
        """Where the distance of ict and ect turns from squared to plain, in root mean square."""
        alone: float = 0.0
        """For sequences: the share of batches of which every frame is a first one."""
        ect_stages: int = 8
        """How often ect halves the distance of its two times, at equal shares of the run."""
        steps: int = 1
        """Evaluations of the delivered student, x_0 re-noised between them."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.mu = config.target_ema  # of the last loss; "ct" lets it follow N(k)

    def stages(self) -> list[Stage]:
        guidance = self.guidance if self.config.recipe == "cd" else 1.0
        return [Stage("train", guidance=guidance)]

    def nets(self) -> dict[str, Role]:
        target = {
            "cd": {"target": Ema(warmed(self.config.target_ema))},
            "ct": {"target": Ema(lambda k: self.mu)},
        }
        return {"student": self.student(target.get(self.config.recipe))}

    def intervals(self, moment: Moment) -> int:
        """N(k): for "ct" growing as in arXiv 2303.01469, appendix C; else doubling at equal shares
        of the stage (iCT, arXiv 2310.14189, eq. 10)."""
        first, last = self.config.first_intervals, self.config.last_intervals
        share = moment.step / max(moment.steps, 1)
        if self.config.recipe == "ct":
            grown = math.sqrt(share * ((last + 1) ** 2 - first**2) + first**2)
            return min(math.ceil(grown - 1) + 1, last)
        doublings = math.floor(math.log2(last / first)) + 1
        return min(first * 2 ** math.floor(share * doublings), last)

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        config = self.config
        data = self.first_frames(batch["data"], config.alone, rng)
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        eps = self.path.noise(x_0.shape, rng)
        own = config.recipe in ("ict", "ect")
        if own and self.levels > 1:
            raise ValueError(
                f"the recipe {config.recipe} weighs whole samples, and the frames of these each "
                "have a noise level; use cd or ct"
            )
        cond = roles["student"].given(x_0, cond, eps)
        t, s, weight = self.pair(moment, x_0.shape[: self.levels], rng)
        x_t, seed = self.path.add_noise(x_0, eps, t), rng.torch_seed()
        with torch.no_grad():
            if config.recipe == "cd":
                x_s = roles["teacher"].ode_step(x_t, t, s, cond, config.solver)
            else:
                x_s = self.path.add_noise(x_0, eps, s)
            target = roles["student" if own else "student.target"]
            end = x_s / expand(self.path.alpha(s.double()).to(x_s.dtype), x_s)
            there = _predicted(target, x_s, s, cond, seed)
            there = torch.where(expand(s > self.path.t_min, x_s), there, end)
        here = _predicted(roles["student"], x_t, t, cond, seed)
        distance = partial(terms.pseudo_huber, c=config.huber) if own else self.distance
        return {
            "total": (terms.mean(weight) * terms.consistency(here, there, distance, mask)).mean()
        }

    def pair(self, moment: Moment, shape: torch.Size, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """(t, s, weight of the distance), each (b,): the two times that are made consistent."""
        if self.config.recipe == "ect":
            return self._easy_pair(moment, shape, rng)
        n = self.intervals(moment)
        if self.config.recipe != "ict":
            self.mu = self._rate(n)
            index = rng.integers(1, n + 1, shape)
            return self._time(index, n), self._time(index - 1, n), torch.ones_like(index).float()
        sigma = self._sigma(self.path.time(torch.linspace(0, 1, n + 1, dtype=torch.float64)))
        z = (torch.log(sigma) - self.config.time_mean) / (math.sqrt(2) * self.config.time_std)
        below = torch.erf(z) - torch.erf(z[0])
        share = rng.uniform(shape).double().cpu()
        index = torch.searchsorted(below[1:] / below[-1], share).clamp(max=n - 1) + 1
        weight = (1 / (sigma[index] - sigma[index - 1])).float().to(rng.device)
        index = index.to(rng.device)
        return self._time(index, n), self._time(index - 1, n), weight

    def _rate(self, n: int) -> float:
        """mu of the target's average: mu(k) = exp(s_0 log mu_0 / N(k)) for "ct"."""
        config = self.config
        if config.recipe != "ct":
            return config.target_ema
        return math.exp(config.first_intervals * math.log(config.target_ema) / n)

    def _easy_pair(self, moment: Moment, shape: torch.Size, rng: Rng):
        """t log-normal and r(t) = t - t (1 - rho) (1 + 8 sigmoid(-t)), at least 0, in sigma."""
        config = self.config
        stage = math.floor(config.ect_stages * moment.step / max(moment.steps, 1))
        gap = max(2.0 ** -(stage + 1), 0.001)
        t = times.log_normal(self.path, shape, rng, config.time_mean, config.time_std)
        sigma = self._sigma(t.double())
        nearer = (sigma * (1 - gap * (1 + 8 * torch.sigmoid(-sigma)))).clamp(min=0)
        return t, self.path.t_of_ratio(nearer).float(), (1 / (sigma - nearer)).float()

    def _sigma(self, t: Tensor) -> Tensor:
        return torch.tan(self.path.angle(t)).clamp(1e-12, LARGEST_SIGMA)

    def _time(self, index: Tensor, n: int) -> Tensor:
        return self.path.time(index.to(torch.float64) / n).float()

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps, stochastic=self.config.steps > 1)


def _predicted(denoiser: Denoiser, x: Tensor, t: Tensor, cond: Cond, seed: int) -> Tensor:
    """x_0, with the dropout mask of `seed`: both ends of a step have the same."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return denoiser.predict(x, t, cond, "x_0")
