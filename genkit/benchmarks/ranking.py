"""Ranks of methods over several figures, with intervals over seeds; the winner on fresh ones.

On one bench, at one number of steps and for one seed, every figure orders the students; a student's
rank is the mean of its places. Places of one seed share a start, a teacher and a noise, so ranks
and differences are paired by seed. The winner is chosen on the first seeds and told on the others.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genkit.metrics.paired import Interval, over_seeds

Row = Mapping[str, Any]
CHOOSING = 0.4  # share of the seeds on which a winner is chosen


def aims(bench: str) -> dict[str, str]:
    """{figure: "less", "more" or "near"} of a bench."""
    from genkit.benchmarks.base import Bench

    module = importlib.import_module(f"genkit.benchmarks.{bench.replace('-', '_')}")
    kinds = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Bench) and each is not Bench
    ]
    return dict(kinds[0].aims)


@dataclass(frozen=True)
class Found:
    """The finished rows of one bench, and how far from best a figure is."""

    bench: str
    rows: Sequence[Row]

    @classmethod
    def of(cls, told: Mapping[str, Any], bench: str) -> Found:
        """The rows of a bench in what the bench's file holds."""
        rows = [r for r in told["rows"] if r["bench"] == bench and r["fate"] == "finished"]
        return cls(bench, rows)

    def figure(self, name: str, steps: int, figure: str) -> dict[int, float]:
        """{seed: figure} of a row's name at a number of steps."""
        return {
            row["seed"]: row["figures"][figure]
            for row in self.rows
            if row["name"] == name and row["steps"] == steps and figure in row["figures"]
        }

    def loss(self, figure: str, value: float) -> float:
        """How far a value is from the best there is; less is better."""
        aim = aims(self.bench)[figure]
        if aim == "near":
            return abs(value - statistics.fmean(self.figure("floor", 0, figure).values()))
        return -value if aim == "more" else value

    def losses(self, name: str, steps: int, figure: str) -> dict[int, float]:
        """{seed: loss} of a row's name at a number of steps."""
        values = self.figure(name, steps, figure)
        return {seed: self.loss(figure, value) for seed, value in values.items()}

    def students(self, steps: int) -> list[str]:
        """The names of what was trained and is ranked at a number of steps."""
        apart = {"floor", "teacher", "flow_matching", "flow_matching:pfgm", "independent"}
        return list(
            dict.fromkeys(
                row["name"]
                for row in self.rows
                if row["steps"] == steps and row["name"] not in apart
            )
        )

    def ranks(self, steps: int) -> dict[str, dict[int, float]]:
        """{name: {seed: mean place over the figures, 1 being the best}}; ties share a place."""
        names, ranks = self.students(steps), dict[str, dict[int, float]]()
        losses = {
            (name, figure): self.losses(name, steps, figure)
            for name in names
            for figure in aims(self.bench)
        }
        for name in names:
            for seed in losses[name, next(iter(aims(self.bench)))]:
                places = []
                for figure in aims(self.bench):
                    mine = losses[name, figure][seed]
                    others = [losses[n, figure].get(seed) for n in names if n != name]
                    better = sum(each < mine for each in others if each is not None)
                    ties = sum(each == mine for each in others if each is not None)
                    places.append(1 + better + ties / 2)
                ranks.setdefault(name, {})[seed] = statistics.fmean(places)
        return ranks

    def order(self, steps: int) -> list[tuple[str, Interval]]:
        """(name, mean rank with its interval), the best first."""
        ranks = self.ranks(steps)
        told = [(name, over_seeds(list(by_seed.values()))) for name, by_seed in ranks.items()]
        return sorted(told, key=lambda each: each[1].value)

    def winner(self, steps: int) -> tuple[str, list[int], list[int]] | None:
        """(the name of least mean rank on the first seeds, those, the fresh ones it is told on);
        None where nothing was trained. Only who has run on every seed can win."""
        ranks = self.ranks(steps)
        if not ranks:
            return None
        seeds = sorted({seed for by_seed in ranks.values() for seed in by_seed})
        chosen = seeds[: max(1, round(CHOOSING * len(seeds)))]
        whole = {n: r for n, r in ranks.items() if set(r) >= set(seeds)} or ranks
        best = min(
            whole, key=lambda n: statistics.fmean([whole[n][s] for s in chosen if s in whole[n]])
        )
        return best, chosen, [seed for seed in seeds if seed not in chosen]

    def difference(
        self, a: tuple[str, int], b: tuple[str, int], figure: str
    ) -> tuple[Interval, int] | None:
        """(loss of a less that of b, over the seeds both have, their number): below 0, a is better.
        Each is (name, steps), a being "best" the winner on fresh seeds. None where a row is
        missing."""
        theirs = self.losses(*b, figure)
        if a[0] == "best":
            winner = self.winner(a[1])
            if winner is None:
                return None
            a = winner[0], a[1]
            theirs = {seed: loss for seed, loss in theirs.items() if seed in winner[2]}
        mine = self.losses(*a, figure)
        shared = sorted(set(mine) & set(theirs))
        if not shared:
            return None
        return over_seeds([mine[seed] - theirs[seed] for seed in shared]), len(shared)
