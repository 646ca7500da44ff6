"""A budget of training, and how many steps of a method fit it.

Learning rates and stages are laid over a method's number of steps, so that number is found first:
a few steps of every stage give what one costs, and some pairs what a pair does. Evaluations are
counted exactly; seconds are the clock's, so nothing else should run meanwhile, and what a run
really took stands beside its figures.
"""

from __future__ import annotations

import math
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from genkit.data.streams import Cost
from genkit.methods.base import Method, Stage
from genkit.runs import Run
from genkit.training.config import TrainerConfig
from genkit.training.meter import Meter
from genkit.training.trainer import Trainer

SPELLED = re.compile(r"(\d+(?:\.\d+)?)\s*(?:(s|m|h)|([kKMG]?)-?nfe)")
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
TIMES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
PAIRS_SHARE = 0.25  # of the budget, which pairs may take: a method that reads them also trains
STEPS, UNTIMED = 12, 3  # steps of each stage that find a step's cost; the first are slower


@dataclass(frozen=True)
class Budget:
    """What each method may spend on training, pairs included; one of the two."""

    seconds: float | None = None
    evaluations: float | None = None

    @classmethod
    def of(cls, text: str) -> Budget:
        """A budget as a person writes it: 30s, 10m, 2h; 200k-nfe, 5M-nfe. ValueError for others."""
        found = SPELLED.fullmatch(text.strip())
        if found is None or float(found[1]) == 0:
            raise ValueError(
                f"budget is {text!r}; give a time such as 30s, 10m or 2h, or a number of network "
                "evaluations such as 200k-nfe or 5M-nfe"
            )
        if found[2]:
            return cls(seconds=float(found[1]) * SECONDS[found[2]])
        return cls(evaluations=float(found[1]) * TIMES[found[3]])

    def part(self, price: Mapping[str, float]) -> float:
        """The share of the budget that something takes, of its evaluations and seconds."""
        if self.seconds is not None:
            return price["seconds"] / self.seconds
        assert self.evaluations is not None, "a budget is of seconds or of evaluations"
        return price["evaluations"] / self.evaluations


@dataclass(frozen=True)
class Prices:
    """What a method's training costs, each in evaluations and seconds.

    step: one step, on average over the stages by their shares; stages: one of each stage; pair: one
    pair of the first stage; sets: how often pairs are made, in such pairs (without guidance, later
    ones cost half of guided ones).
    """

    step: Mapping[str, float]
    stages: Mapping[str, Mapping[str, float]]
    pair: Mapping[str, float]
    sets: float


@dataclass(frozen=True)
class Plan:
    """How a method spends the budget: its steps, its pairs, and what they are expected to cost."""

    max_steps: int
    pairs: int
    prices: Prices

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Steps(Meter):
    """A meter that keeps what every single step took, by stage."""

    def __init__(self) -> None:
        super().__init__()
        self.each: dict[str, list[Cost]] = {}

    @contextmanager
    def step(self, stage: str) -> Iterator[None]:
        before = replace(self.trained)
        with super().step(stage):
            yield
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        now = self.trained
        taken = Cost(now.evaluations - before.evaluations, now.seconds - before.seconds)
        self.each.setdefault(stage, []).append(taken)


# train(trainer's config, number of pairs, meter): a training that is thrown away.
Train = Callable[[TrainerConfig, int, Meter], None]


def prices(run: Run) -> Prices:
    """What `run`'s steps and pairs cost. `run` itself is spent: its method's stages are changed."""

    def train(config: TrainerConfig, pairs: int, meter: Meter) -> None:
        around = replace(run.settings.run, pairs=pairs)
        settings = replace(run.settings, trainer=config, run=around)
        with tempfile.TemporaryDirectory() as folder:
            short = replace(run, settings=settings, meter=meter, cache=Path(folder) / "cache")
            Trainer(
                short.method,
                Path(folder) / "run",
                config,
                streams=short.streams(),
                teacher=None if run.teacher is None else run.teacher.denoiser,
                make_pairs=short.make_pairs,
                meter=meter,
            ).run()

    return priced(run.method, run.settings.trainer, run.settings.run.pairs, train)


def priced(method: Method, config: TrainerConfig, pairs: int, train: Train) -> Prices:
    """What a method's steps and pairs cost, by a short training of equal stages, which `train`
    does. `method` is spent: its stages are changed."""
    stages, meter = method.stages(), Steps()
    even = [
        replace(stage, share=1 / len(stages), new_data=k == 0) for k, stage in enumerate(stages)
    ]
    method.stages = lambda: even  # type: ignore[method-assign]
    count = min(pairs, 2 * config.batch_size)
    short = replace(
        config,
        max_steps=STEPS * len(stages),
        log_every=STEPS,
        checkpoint_every=STEPS * len(stages),
        keep_weights=0,
        max_minutes=None,
    )
    train(short, count, meter)
    each = {name: _typical(costs) for name, costs in meter.each.items()}
    shares = {stage.name: stage.share for stage in stages}
    step = {
        part: sum(shares[name] * cost[part] for name, cost in each.items())
        for part in ("evaluations", "seconds")
    }
    made = sum(meter.made.values(), Cost())
    pair = {name: value / (count * max(1, len(meter.made))) for name, value in asdict(made).items()}
    later = [each for each in stages[1:] if each.new_data and "pairs" in method.needs]
    again = sum(_asked(each) / _asked(stages[0]) for each in later)
    return Prices(step, each, pair, len(meter.made) + again)


def _asked(stage: Stage) -> float:
    """Evaluations of one prediction of a stage's teacher."""
    return 1.0 if stage.guidance == 1 else 2.0


def _typical(costs: list[Cost]) -> dict[str, float]:
    """Of a step of one stage. Evaluations are of all steps, as a method's turns may differ over a
    stage."""
    return {
        "evaluations": statistics.mean(each.evaluations for each in costs),
        "seconds": statistics.median(each.seconds for each in costs[UNTIMED:]),
    }


def fitted(budget: Budget, found: Prices, pairs: int, batch: int) -> Plan:
    """Steps and pairs that fit the budget: `pairs` of them, or as many as a quarter of it makes.

    ValueError where it does not last for a batch of pairs and a step of every stage.
    """
    one_step, one_pair = budget.part(found.step), budget.part(found.pair) * found.sets
    least = min(batch, pairs)
    if one_pair * pairs > PAIRS_SHARE:
        pairs = int(PAIRS_SHARE / one_pair + 1e-9)
    steps = int((1 - one_pair * pairs) / one_step + 1e-9)  # as whole numbers would give it
    if steps < len(found.stages) or pairs < least:
        share = PAIRS_SHARE if found.sets else 0.0
        needed = max(len(found.stages) * one_step / (1 - share), least * one_pair / PAIRS_SHARE)
        raise ValueError(
            "the budget does not last for a step of every stage and a batch of pairs; give "
            f"{math.ceil(10 * needed) / 10:.1f} times as much"
        )
    return Plan(steps, pairs, found)
