"""A run's stages as whole steps."""

from __future__ import annotations

from dataclasses import dataclass

from genkit.methods.base import Moment, Stage


@dataclass(frozen=True)
class Span:
    """A stage and the student steps first..last-1 that are its own."""

    stage: Stage
    first: int
    last: int

    def moment(self, step: int) -> Moment:
        """Where the run's step lies in this stage."""
        return Moment(self.stage, step - self.first, self.last - self.first)

    def progress(self, step: int) -> float:
        """The share of the stage that is behind after `step` steps of the run."""
        return (step - self.first) / (self.last - self.first)


def plan(stages: list[Stage], max_steps: int) -> list[Span]:
    """Shares as whole steps that add up to max_steps; a stage left with none is dropped."""
    assert abs(sum(stage.share for stage in stages) - 1) < 1e-6, "the stages' shares must add to 1"
    spans, first, done = [], 0, 0.0
    for stage in stages:
        done += stage.share
        last = round(done * max_steps)
        if last > first:
            spans.append(Span(stage, first, last))
        first = last
    return spans
