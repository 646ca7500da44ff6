"""Training students of a known density under one budget, of seconds or of network evaluations.

Every method runs through genkit's Trainer as in a real run. Its learning rates and stages are laid
over its number of steps, so the number that fits the budget is found first: two short runs give the
cost of a step. Seconds are the process's own (all its threads together), so that a busy machine
favours nobody; with one thread on an idle one they are the clock's. Evaluations are counted by the
Trainer, as in any run; the exact teacher, which is no network, costs none.
"""

from __future__ import annotations

import copy
import importlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit import hub
from genkit.data.streams import Stream, TensorStream
from genkit.denoisers.analytic import Mixture
from genkit.denoisers.base import Denoiser, NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.methods.base import Method, Stage
from genkit.networks.mlp import MLPDenoiser
from genkit.rng import generator, sample_generators, sample_noise
from genkit.sampling import Sampler
from genkit.training.config import TrainerConfig
from genkit.training.meter import Meter, counted
from genkit.training.trainer import Trainer

WIDTH = 256
BATCH = 128
PAIRS = 16_384  # of the exact teacher, made once
RENEWED = 8192  # of a network, made within its method's budget
PAIR_STEPS = 25  # of order 3, where the exact teacher's samples have stopped changing
PAIR_SEED, SAMPLE_SEED = 5_000_000, 6_000_000
SHORT, LONG = 16, 64  # steps of the two runs that find the cost of one


@dataclass(frozen=True)
class Budget:
    """Of every student: seconds of training, or evaluations of its networks; one of the two."""

    seconds: float | None
    evaluations: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.evaluations is None):
            raise ValueError("give a budget of seconds or one of evaluations")
        if (self.seconds or self.evaluations or 0) <= 0:
            raise ValueError(f"a budget of {self.seconds or self.evaluations}; give more than 0")

    def steps(self, seconds: float, evaluations: float, once: float = 0.0) -> int:
        """Steps that fit, each costing so much, after `once` seconds that do not depend on them."""
        if self.seconds is not None:
            return max(LONG, round((self.seconds - once) / seconds))
        assert self.evaluations is not None
        return max(LONG, round(self.evaluations / evaluations))


@dataclass(frozen=True)
class FreshDraws:
    """A stream that never repeats: draws of the density, beside noise they know nothing of."""

    density: Mixture
    cond: Mapping[str, Tensor]

    def batch(self, seed: int, index: int, size: int) -> dict[str, Any]:
        """The `index`-th global batch of `size` draws."""
        draw = generator(seed, "draws", index)
        x_0, _ = self.density.draw(size, draw)
        eps = torch.randn(x_0.shape, generator=draw)
        return {"eps": eps, "x_0": x_0, "cond": repeated(self.cond, size)}


@dataclass
class Problem:
    """A density, which is the teacher too; the shape of a sample; the conditions all share."""

    density: Mixture
    latent: tuple[int, ...]
    cond: Mapping[str, Tensor]
    _pairs: TensorStream | None = None

    def network(self) -> NetworkDenoiser:
        """A fresh student."""
        network = MLPDenoiser(self.latent[0], self.latent[-1], WIDTH)
        call = network_call(network)
        return NetworkDenoiser(network, call, self.density.path, "velocity", 1000.0)

    def draws(self) -> FreshDraws:
        """Data without end."""
        return FreshDraws(self.density, self.cond)

    def pairs(self) -> TensorStream:
        """Noise and what the exact teacher makes of it; made once, outside every budget."""
        if self._pairs is None:
            self._pairs = self.make_pairs(self.density, PAIRS)
        return self._pairs

    def make_pairs(self, teacher: Denoiser, n: int) -> TensorStream:
        """n pairs of a teacher, the exact one or a network."""
        sampler = Sampler(PAIR_STEPS, order=3)
        scheduler = hub.make_scheduler(sampler, teacher.path, "velocity", teacher.time_scale)
        eps = sample_noise(self.latent, sample_generators(PAIR_SEED, n))
        with torch.no_grad():
            x_0 = torch.cat(
                [
                    teacher.sample(part, repeated(self.cond, len(part)), scheduler, PAIR_STEPS)
                    for part in eps.split(2048)
                ]
            )
        return TensorStream({"eps": eps, "x_0": x_0, "cond": repeated(self.cond, n)})


@dataclass(frozen=True)
class Trained:
    """A student, and what it cost."""

    method: Method
    student: Denoiser
    cond: Mapping[str, Tensor]
    seconds: float
    evaluations: int
    train_steps: int

    @property
    def steps(self) -> int:
        """Evaluations of one sampling, as trained."""
        return self.method.sampler().steps

    def row(self, name: str, steps: int, seed: int) -> dict[str, Any]:
        """The row's head."""
        cost = {"seconds": self.seconds, "evaluations": self.evaluations}
        return {"name": name, "steps": steps, "seed": seed, "train_steps": self.train_steps} | cost

    def copy(self) -> Denoiser:
        """The student, to train further."""
        return copy.deepcopy(self.student).requires_grad_(True)

    def samples(self, n: int, seed: int, steps: int | None = None) -> Tensor:
        """n samples by the method's own sampler, on the noise that every student of a seed gets."""

        def run(noise: Tensor, generators: list[torch.Generator]) -> Tensor:
            cond = repeated(self.cond, len(noise))
            return self.method.sample(self.student, noise, cond, steps, generators)

        return draw_samples(run, self.method.latent, n, seed)


def repeated(cond: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """The conditions of one sample, n times."""
    return {name: value.expand(n, *value.shape[1:]) for name, value in cond.items()}


def draw_samples(
    run: Callable[[Tensor, list[torch.Generator]], Tensor],
    latent: tuple[int, ...],
    n: int,
    seed: int,
) -> Tensor:
    """n samples of run(noise, generators), in parts; sample i of a seed always has one noise."""
    parts = []
    with torch.no_grad():
        for first in range(0, n, 2000):
            generators = sample_generators(SAMPLE_SEED + seed, min(2000, n - first), first)
            parts.append(run(sample_noise(latent, generators), generators))
    return torch.cat(parts)


def start(problem: Problem, budget: Budget, seed: int) -> Trained:
    """The network all students begin with: the teacher's velocity as far as it can hold it."""
    return fit("flow_matching", {"drop": 0.0}, problem, None, budget, seed)


def fit(
    name: str,
    settings: Mapping[str, Any],
    problem: Problem,
    begun: Trained | None,
    budget: Budget,
    seed: int,
    paired: bool = True,
) -> Trained:
    """A student by the method `name` (the part before a comma) from the start `begun`, or from
    scratch. paired=False gives it unrelated pairs in place of the teacher's."""
    streams: dict[str, Stream] = {"data": problem.draws(), "prompts": problem.draws()}
    pairs = problem.pairs() if begun is not None and paired else problem.draws()

    def train(steps: int, short: bool) -> Trained:
        made = BATCH if short else RENEWED

        def renew(teacher: Denoiser, stage: Stage, number: int) -> Stream:
            if isinstance(teacher, Mixture):  # the exact one, by now perhaps a copy
                return pairs
            with counted(teacher) as cost:
                renewed = problem.make_pairs(teacher, made)
            meter.made[f"pairs {number}"] = cost
            return renewed

        method, meter = build(name.partition(",")[0], settings, problem), Meter()
        return _run(method, problem, begun, streams, renew, steps, seed, meter)

    few, more = train(SHORT, True), train(LONG, True)
    each = (more.seconds - few.seconds) / (LONG - SHORT)
    rows = (more.evaluations - few.evaluations) / (LONG - SHORT)
    once = 0.0
    if begun is not None:
        later = build(name.partition(",")[0], settings, problem).stages()[1:]
        began = time.process_time()
        problem.make_pairs(begun.student, 2048)
        shard = time.process_time() - began
        once = sum(RENEWED / 2048 * shard for stage in later if stage.new_data)
    return train(budget.steps(each, rows, once), False)


def build(name: str, settings: Mapping[str, Any], problem: Problem) -> Method:
    """The method of a name with these settings and its scheduler."""
    cls = importlib.import_module(f"genkit.methods.{name}").Method
    config, path = cls.Config(**settings), problem.density.path
    method = cls(config, path, problem.latent, uncond=problem.cond)
    method.scheduler = hub.make_scheduler(method.sampler(), method.path, "velocity", 1000.0)
    return method


def _run(
    method: Method,
    problem: Problem,
    begun: Trained | None,
    streams: Mapping[str, Stream],
    make_pairs: Callable[[Denoiser, Stage, int], Stream],
    steps: int,
    seed: int,
    meter: Meter,
) -> Trained:
    roles = method.nets()
    if begun is not None:
        # From a student's start instead of the exact teacher's, which has no weights.
        started = {
            name: replace(role, start=None) if role.start == "teacher" else role
            for name, role in roles.items()
        }
        method.nets = lambda: started  # type: ignore[method-assign]
    config = TrainerConfig(
        max_steps=steps,
        batch_size=BATCH,
        seed=seed,
        log_every=steps,
        sample_every=0,
        measure_every=0,
        checkpoint_every=steps,
    )
    delivered: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            method,
            Path(folder) / "run",
            config,
            streams={name: each for name, each in streams.items() if name in method.needs},
            network=problem.network if begun is None else begun.copy,
            teacher=copy.deepcopy(problem.density) if method.has_teacher else None,
            make_pairs=make_pairs,
            export=lambda parts, out: delivered.update(parts),
            meter=meter,
        )
        began = time.process_time()
        trainer.run()
        seconds = time.process_time() - began
    student = delivered["network"].eval()
    rows = meter.total().evaluations
    return Trained(method, student, problem.cond, seconds, rows, steps)
