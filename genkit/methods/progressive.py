"""Progressive distillation: each student does in one step what its teacher does in two.

Salimans & Ho 2022 (arXiv 2202.00512, alg. 2). From `base_steps` DDIM steps of the teacher the
number is halved, stage by stage, to `steps`; each stage begins with a fresh optimizer and the last
student as teacher and as its own start. The target is the x_0 of the straight line from x_t to the
end of the teacher's two steps, and errors are weighed by the signal-to-noise ratio (sec. 4).
Faithful but for: grids are uniform on any path's own clock (theirs is the cosine schedule's); the
last interval ends at sigma = 0 as the delivered sampler does; all stages are equally long (theirs
grow at the end). Guidance is folded in by the first halving only, as by Meng et al. (arXiv
2210.03142); theirs trains a first stage for it and lets w vary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genkit import terms
from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond
from genkit.methods import base
from genkit.methods.base import Batch, Losses, Moment, Roles, Stage
from genkit.paths import expand
from genkit.rng import Rng
from genkit.sampling import Sampler


class Method(base.Method):
    family = "trajectory"
    paper = "arXiv 2202.00512"
    needs = ("data",)

    @dataclass
    class Config(base.Distillation):
        lr: float = 1e-3
        """Learning rate at the start of each stage, decayed to 0."""
        warmup: int = 50
        """Steps over which the learning rate rises in each stage."""
        ema: float = 0.999
        """Rate of the average that is sampled, delivered, and the next stage's teacher."""
        guidance: float | None = None
        """The teacher's guidance, folded in by the first halving; by default the teacher's own."""
        base_steps: int = 32
        """DDIM steps of the teacher, halved until they are the student's."""
        weighting: Literal["truncated_snr", "snr_plus_one"] = "truncated_snr"
        """Weight of the squared error of x_0: max(SNR, 1) or SNR + 1."""
        steps: int = 1
        """Evaluations of the delivered student."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        halvings = math.log2(config.base_steps / config.steps)
        if halvings < 1 or halvings != int(halvings):
            raise ValueError(
                f"base_steps is {config.base_steps}, which is not {config.steps} doubled once or "
                f"more; give {2 * config.steps}, {4 * config.steps}, {8 * config.steps}, ..."
            )

    def stages(self) -> list[Stage]:
        """One stage for each halving, named by the steps of its student."""
        config, stages = self.config, []
        halvings = int(math.log2(config.base_steps / config.steps))
        again = {"teacher": "student", "student": "teacher"}
        for k in range(halvings):
            n = config.base_steps // 2 ** (k + 1)
            stages.append(
                Stage(
                    f"{n} step" + ("s" if n > 1 else ""),
                    1 / halvings,
                    start=again if k else {},
                    guidance=1.0 if k else self.guidance,
                    fresh_optimizer=True,
                    steps=n,
                )
            )
        return stages

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        data, n = batch["data"], moment.stage.steps
        assert n is not None, "every stage says how many steps its student takes"
        x_0, cond, mask = data["x_0"], data["cond"], data.get("mask")
        eps = self.path.noise(x_0.shape, rng)
        index = rng.integers(1, n + 1, x_0.shape[:1])
        t = self._time(index.double() / n)
        x_t = self.path.add_noise(x_0, eps, t)
        target = self.target(roles["teacher"], x_t, index, n, cond)
        prediction = roles["student"].predict(x_t, t, cond, "x_0")
        return {"total": (self._weight(t) * self.distance(prediction, target, mask)).mean()}

    @torch.no_grad()
    def target(self, teacher: Denoiser, x_t: Tensor, index: Tensor, n: int, cond: Cond) -> Tensor:
        """The x_0 a student of n steps must predict at x_t (b, ...), t being number `index` (b,) of
        its grid, counted from the data: two DDIM steps of the teacher, taken as one."""
        t, middle, s = (self._time((index.double() - back) / n) for back in (0.0, 0.5, 1.0))
        x_middle = self._ddim(teacher, x_t, t, middle, cond)
        clean = teacher.predict(x_middle, middle, cond, "x_0")
        x_s = self._renoised(clean, x_middle, middle, s)
        line = terms.line_x_0(x_t, t, x_s, s, self.path)
        return torch.where(expand(index == 1, x_t), clean, line)

    def _ddim(self, teacher: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
        return self._renoised(teacher.predict(x, t, cond, "x_0"), x, t, s)

    def _renoised(self, x_0: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """x at s, of the predicted x_0 and the noise it leaves in x at t."""
        return self.path.add_noise(x_0, self.path.convert(x_0, x, t, "x_0", "eps"), s)

    def _weight(self, t: Tensor) -> Tensor:
        wide_t = t.double()
        snr = (self.path.alpha(wide_t) / self.path.sigma(wide_t)).square().float()
        return snr.clamp(min=1) if self.config.weighting == "truncated_snr" else snr + 1

    def _time(self, u: Tensor) -> Tensor:
        return self.path.time(u).float()

    def sampler(self) -> Sampler:
        return Sampler(steps=self.config.steps)
