"""Collapse: a run that has gone wrong stops with a sentence that says what was seen.

Judged on the preview's samples, from a tenth of a stage on, against a reference (the teacher's
samples on the same noise, or data) and against the student's own start. One-step score methods
begin near-constant, since any teacher asked at pure noise returns the data mean: what was already
so at the stage's start counts only if it got worse, or is still so after half of the stage, and
that half was long enough to learn in. (A barely trained teacher, or a trial of a few dozen steps,
begins and stays near the mean, and nothing is wrong with it.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from genkit.guidance import Cond

JUDGED_FROM = 0.1  # share of a stage before which samples are not judged
PATIENCE = 0.5  # share of a stage a bad start is given to get better,
ENOUGH = 200  # and student steps
WORSE = 1.1  # factor on a bad start's severity, from which it got worse
DRIFT = 3.0  # the samples' deviation may be this factor above or below the reference's
CONSTANT = 0.05  # the least variety across noise, as a share of the reference's
TINY = 1e-12


class Collapse(RuntimeError):
    """Training has collapsed; the message says what was seen."""


@dataclass(frozen=True)
class Look:
    """What is seen of samples (n, ...).

    std: deviation of all elements. variety: deviation across noise at one condition, root mean
    square over conditions and elements. pinned: share of elements at or beyond the reference's
    largest magnitude (within 1%).
    """

    std: float
    variety: float
    pinned: float


def same_condition(cond: Cond, n: int) -> list[Tensor]:
    """The rows that share a condition, where at least two do; else all rows as one group."""
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for row in range(n):
        key = tuple(value[row].cpu().float().numpy().tobytes() for value in cond.values())
        groups.setdefault(key, []).append(row)
    found = [torch.tensor(rows) for rows in groups.values() if len(rows) > 1]
    return found or [torch.arange(n)]


def look(samples: Tensor, groups: list[Tensor], limit: float) -> Look:
    """What is seen of the samples; limit is the largest magnitude of the reference."""
    x = samples.double().flatten(1)
    within = torch.stack([x[rows].var(0, correction=0).mean() for rows in groups]).mean()
    pinned = (x.abs() >= 0.99 * limit).double().mean()
    return Look(x.std(correction=0).item(), within.sqrt().item(), pinned.item())


class Health:
    """Judges the samples of one run.

    reference: samples (n, ...) of the same conditions as the student's; without one only variety is
    judged, against the start of the stage. `start` and `judge` see samples in the same rows.
    """

    def __init__(self, reference: Tensor | None, cond: Cond, n: int) -> None:
        self.groups = same_condition(cond, n)
        self.limit = math.inf if reference is None else reference.abs().max().item()
        self.reference = None if reference is None else look(reference, self.groups, self.limit)
        self._start: Look | None = None

    def start(self, samples: Tensor) -> None:
        """The student's samples at the beginning of a stage."""
        self._start = look(samples, self.groups, self.limit)

    def judge(self, samples: Tensor, progress: float, steps: int = ENOUGH) -> dict[str, float]:
        """Figures for the log; Collapse if the samples are bad at this share of the stage, after so
        many of its steps."""
        broken = int((~torch.isfinite(samples.flatten(1)).all(1)).sum())
        if broken:
            raise Collapse(f"{broken} of {len(samples)} samples hold values that are not finite")
        now = look(samples, self.groups, self.limit)
        if progress >= JUDGED_FROM and self._start is not None:
            self._compare(now, self._start, progress, steps)
        return {f"samples/{key}": value for key, value in asdict(now).items()}

    def _compare(self, now: Look, start: Look, progress: float, steps: int) -> None:
        late = progress >= PATIENCE and steps >= ENOUGH
        for (severity, limit, seen), (before, _, _) in zip(
            self._signs(now, start), self._signs(start, start), strict=True
        ):
            # A start just within the limit is one just beyond it: neither counts alone.
            if severity > (limit if late else max(limit, WORSE * before)):
                raise Collapse(f"{seen}, {progress:.0%} into the stage")

    def _signs(self, now: Look, start: Look) -> list[tuple[float, float, str]]:
        """(severity, its limit, the sentence) of each kind of collapse."""
        whole = self.reference or start
        beside = "the reference's" if self.reference else "at the stage's start"
        variety = max(now.variety, TINY) / max(whole.variety, TINY)
        signs = [
            (
                -math.log(variety),
                -math.log(CONSTANT),
                f"the samples hardly depend on the noise any more: their variety is "
                f"{now.variety:.3g} beside {whole.variety:.3g} {beside}",
            )
        ]
        if self.reference is None:
            return signs
        drift = max(now.std, TINY) / max(whole.std, TINY)
        signs.append(
            (
                abs(math.log(drift)),
                math.log(DRIFT),
                f"the samples' deviation is {now.std:.3g} beside {whole.std:.3g} {beside}",
            )
        )
        signs.append(
            (
                now.pinned,
                (1 + whole.pinned) / 2,
                f"{now.pinned:.0%} of all values are saturated, at or beyond the largest of "
                f"{beside} ({whole.pinned:.0%} there)",
            )
        )
        return signs

    def state(self) -> dict[str, Any] | None:
        """What must be remembered over a resume."""
        return None if self._start is None else asdict(self._start)

    def load(self, state: Mapping[str, float] | None) -> None:
        """Take back `state`."""
        self._start = None if state is None else Look(**state)
