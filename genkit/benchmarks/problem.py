"""Students of a density that is known exactly: the teacher, its data and pairs, and one training.

Every method runs through genkit's Trainer as in a real run, under the budget that `genkit compare`
gives (comparison/budget.py). The exact teacher stands in for a network: each sample that it is
asked for counts as an evaluation, those for pairs too. What it has not, weights and features, are
those of a network trained on the density by flow matching: the start, which all students copy.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genkit import catalogue, hub
from genkit.benchmarks import combined, presets
from genkit.comparison.budget import Budget, Plan, fitted, priced
from genkit.data.streams import Cost, Stream, TensorStream
from genkit.denoisers.base import AnyKind, Call, Denoiser, NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.guidance import Cond
from genkit.lora import adapted
from genkit.methods.base import Method, Role, Stage, begin_student
from genkit.networks.size import parsed, resized
from genkit.paths import Kind
from genkit.rng import generator, sample_generators, sample_noise
from genkit.sampling import Sampler, starting_scale
from genkit.settings import Settings
from genkit.training.config import TrainerConfig
from genkit.training.meter import Meter, counted
from genkit.training.preview import Preview
from genkit.training.trainer import Trainer

START = "flow_matching"
PAIR_SEED, SAMPLE_SEED, PREVIEW_SEED = 5_000_000, 6_000_000, 7_000_000
PREVIEWED = 256  # samples by which a collapse is seen, at every quarter of a training
TIME_SCALE = 1000.0
PART = 1000  # samples made at once


@cache
def class_of(name: str) -> Any:
    """The method's class, of a name that may have a word after a colon."""
    return catalogue.method_class(name.partition(":")[0])


def exact(kind: Kind) -> Call:
    """How a density is called as a network that predicts `kind`."""

    def call(
        network: nn.Module, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
    ) -> Tensor:
        assert isinstance(network, Denoiser)
        return network.predict(x_t, timestep, cond, kind)

    return call


class ExactTeacher(NetworkDenoiser):
    """A density as a run's teacher: its predictions are exact, its features those of `like`."""

    def __init__(self, density: Denoiser, like: Denoiser) -> None:
        super().__init__(density, exact(like.kind), density.path, like.kind)
        self.like = like

    def trace(
        self,
        x_t: Tensor,
        t: Tensor,
        cond: Cond,
        kind: AnyKind,
        names: Sequence[str],
        until: str | None = None,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """As every Denoiser's, and one evaluation like theirs; names may be those of `like`."""
        own = {name: name.removeprefix("like.") for name in names}
        last = until and until.removeprefix("like.")
        _, found = self.like.trace(x_t, t, cond, "velocity", list(own.values()), last)
        assert isinstance(self.network, Denoiser)
        prediction = None if until else self.network.predict(x_t, t, cond, kind)
        return prediction, {name: found[theirs] for name, theirs in own.items()}


@dataclass(frozen=True)
class FreshDraws:
    """A stream that never repeats: draws of the density, beside noise they know nothing of."""

    problem: Problem

    def batch(self, seed: int, index: int, size: int) -> dict[str, Any]:
        """The `index`-th global batch of `size` draws."""
        problem, draw = self.problem, generator(seed, "draws", index)
        which = torch.randint(len(problem.classes), (size,), generator=draw)
        cond = {"label": torch.tensor(problem.classes)[which]}
        x_0 = problem.draw(cond, draw)
        return {"eps": torch.randn(x_0.shape, generator=draw), "x_0": x_0, "cond": cond}


@dataclass
class Problem:
    """A density that is the teacher too, and what a student of it is.

    name: of the presets that are read. draw(cond, generator): samples x_0 of it. latent: shape of a
    sample. classes: the labels there are; nothing: the label of none. build: a fresh network. kind,
    time_scale: of what a network predicts and is told; call: where it is not the network's own.
    """

    name: str
    density: Denoiser
    draw: Callable[[Cond, torch.Generator], Tensor]
    latent: tuple[int, ...]
    classes: tuple[int, ...]
    nothing: int
    build: Callable[[], nn.Module]
    batch: int = 64
    kind: Kind = "velocity"
    time_scale: float = TIME_SCALE
    call: Call | None = None
    _made: dict[tuple[int, int, int], list[tuple[Tensor, Tensor, Tensor]]] = field(
        default_factory=dict
    )

    def fresh(self) -> NetworkDenoiser:
        """A fresh student."""
        return self.holding(self.build())

    def holding(self, network: nn.Module) -> NetworkDenoiser:
        """A student with this network."""
        call = self.call or network_call(network)
        return NetworkDenoiser(network, call, self.density.path, self.kind, self.time_scale)

    def cond(self, n: int) -> dict[str, Tensor]:
        """Conditions of n samples, every class as often."""
        return {"label": torch.tensor(self.classes)[torch.arange(n) % len(self.classes)]}

    @property
    def uncond(self) -> dict[str, Tensor]:
        """The condition of none."""
        return {"label": torch.tensor([self.nothing])}

    def pairs(
        self, teacher: Denoiser, n: int, steps: int, order: int, points: int = 0
    ) -> tuple[TensorStream, Cost]:
        """n pairs of a teacher, with `points` of its path as a Stage asks for them, and what they
        cost. Those of the exact one are made once, and cost their evaluations each time."""
        if points and steps % points:
            raise ValueError(f"pair_steps is {steps}, which {points} points do not divide")
        began, cost, parts = time.perf_counter(), Cost(), -(-n // PART)
        asked = steps, order, points
        if isinstance(teacher, ExactTeacher):
            made = self._made.setdefault(asked, [])
            while len(made) < parts:
                made.append(self._pairs(teacher, PART * len(made), PART, *asked))
            cost.evaluations = n * steps
        else:
            with counted(teacher) as cost:
                made = [
                    self._pairs(teacher, PART * k, min(PART, n - PART * k), *asked)
                    for k in range(parts)
                ]
        eps, x_0, x_t = (torch.cat(each)[:n] for each in zip(*made[:parts], strict=True))
        cost.seconds = time.perf_counter() - began
        told = {"eps": eps, "x_0": x_0, "cond": self.cond(n)}
        if points:
            t = teacher.path.grid(points).float().expand(n, points)
            told["path"] = {"x_t": x_t, "t": t}
        return TensorStream(told), cost

    @torch.no_grad()
    def _pairs(
        self, teacher: Denoiser, first: int, count: int, steps: int, order: int, points: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(eps, x_0, x_t (count, points, ...)) of the pairs from number `first` on."""
        sampler = Sampler(steps, order=order)
        scheduler = hub.make_scheduler(sampler, teacher.path, teacher.kind, teacher.time_scale)
        generators = sample_generators(PAIR_SEED, count, first)
        cond = {name: value[first:] for name, value in self.cond(first + count).items()}
        eps = sample_noise(self.latent, generators)
        seen = [eps * starting_scale(scheduler)] if points else [eps[:, :0]]

        def look(i: int, timestep: Tensor, x: Tensor) -> Tensor:
            if points and (i + 1) % (steps // points) == 0 and i + 1 < steps:
                seen.append(x)
            return x

        x_0 = teacher.sample(eps, cond, scheduler, steps, generators, look)
        return eps, x_0, torch.stack(seen, 1)


@dataclass(frozen=True)
class Student:
    """A trained network, how it is sampled, and what it cost."""

    network: Denoiser
    training: Training
    cost: Cost
    train_steps: int

    def copy(self, problem: Problem) -> Denoiser:
        """The network, to train further on a problem."""
        assert isinstance(self.network, NetworkDenoiser)
        return problem.holding(copy.deepcopy(self.network.network).requires_grad_(True))

    def samples(self, n: int, seed: int, steps: int | None = None) -> Tensor:
        """n samples by the method's own sampler of so many steps, on the noise that every student
        of a seed gets."""
        return self.training.samples(self.network, n, seed, steps)


def draw_samples(
    run: Callable[[Tensor, Cond, list[torch.Generator]], Tensor],
    problem: Problem,
    n: int,
    seed: int,
) -> Tensor:
    """n samples of run(noise, cond, generators), in parts; sample i of a seed always has one noise
    and one condition."""
    parts, cond = [], problem.cond(n)
    with torch.no_grad():
        for first in range(0, n, PART):
            generators = sample_generators(SAMPLE_SEED + seed, min(PART, n - first), first)
            some = {name: value[first : first + PART] for name, value in cond.items()}
            parts.append(run(sample_noise(problem.latent, generators), some, generators))
    return torch.cat(parts)


@dataclass(frozen=True)
class Training:
    """One method on one problem, from the start `begun`, or from nothing.

    name: the method's, and after a colon a word for settings that are not its preset's. given:
    settings over the preset. paired: whether its pairs are the teacher's, or unrelated ones.
    """

    name: str
    problem: Problem
    begun: Student | None
    given: Mapping[str, Any] = field(default_factory=dict)
    paired: bool = True

    @property
    def settings(self) -> Settings:
        """All settings: the presets for known densities and for the problem, and over them what was
        given."""
        found = presets.of(self.problem.name, self.name.partition(":")[0])
        own = {"batch_size": self.problem.batch, **found}
        settings = Settings.of(class_of(self.name), {**own, **self.given})
        settings.take_teacher(1.0, Sampler(50))
        return settings

    def method(self, steps: int | None = None) -> Method:
        """The method with its scheduler; steps: in place of those of its settings."""
        cls = class_of(self.name)
        config, problem = self.settings.method, self.problem
        if steps is not None and steps != getattr(config, "steps", steps):
            config = replace(config, steps=steps)
        method = cls(config, self._fresh().path, problem.latent, uncond=problem.uncond)
        method.scheduler = hub.make_scheduler(
            method.sampler(), method.path, problem.kind, problem.time_scale
        )
        return method

    def _fresh(self) -> Denoiser:
        """An untrained network, as the method trains one."""
        return class_of(self.name).fresh(self.settings.method, self.problem.fresh())

    def samples(self, network: Denoiser, n: int, seed: int, steps: int | None = None) -> Tensor:
        """n samples of a student's network by the method's own sampler."""
        method = self.method(steps)

        def run(noise: Tensor, cond: Cond, generators: list[torch.Generator]) -> Tensor:
            return method.sample(network, method.path.prior(noise), cond, None, generators)

        return draw_samples(run, self.problem, n, seed)

    def plan(self, budget: Budget) -> Plan:
        """Its steps and pairs under a budget. ValueError where it cannot, or is refused."""
        if class_of(self.name).merges:
            raise ValueError(f"{self.name} merges several teachers, and a bench has one")
        method, settings = self.method(), self.settings
        if settings.trainer.keep_weights:
            assert budget.evaluations is not None, "a bench's budget is of evaluations"
            budget = Budget(evaluations=(1 - combined.SHARE) * budget.evaluations)

        def train(config: TrainerConfig, pairs: int, meter: Meter) -> None:
            self._train(method, config, pairs, meter, None)

        found = priced(method, settings.trainer, settings.run.pairs, train)
        return fitted(budget, found, settings.run.pairs, settings.trainer.batch_size)

    def run(self, max_steps: int, pairs: int, seed: int, watched: bool = True) -> Student:
        """Train; Collapse where it goes wrong, which is looked for where it is `watched`. Where it
        keeps weights, the student is their best combination."""
        settings = self.settings.trainer
        config = replace(
            settings,
            max_steps=max_steps,
            seed=seed,
            log_every=max_steps,
            sample_every=0,
            measure_every=max(1, max_steps // 4) if watched else 0,
            checkpoint_every=max(1, max_steps // max(1, settings.keep_weights)),
        )
        meter, method = Meter(), self.method()
        preview = self._preview(method) if watched else None
        network = self._train(method, config, pairs, meter, preview)
        return Student(network, self, meter.total(), max_steps)

    def _preview(self, method: Method) -> Preview:
        """The student beside draws of the density."""
        cond = self.problem.cond(PREVIEWED)
        real = self.problem.draw(cond, generator(PREVIEW_SEED, "preview"))
        return Preview(PREVIEWED, cond, PREVIEW_SEED, lambda rows, stem: stem, reference=real)

    def _train(
        self,
        method: Method,
        config: TrainerConfig,
        pairs: int,
        meter: Meter,
        preview: Preview | None,
    ) -> Denoiser:
        problem, begun, around = self.problem, self.begun, self.settings.run
        streams: dict[str, Stream] = {"data": FreshDraws(problem), "prompts": FreshDraws(problem)}
        if not self.paired:
            streams["pairs"] = FreshDraws(problem)

        def renew(teacher: Denoiser, stage: Stage, number: int) -> Stream:
            if not self.paired:
                return streams["pairs"]
            how = around.pair_steps, around.pair_order, stage.points
            made, cost = problem.pairs(teacher, pairs, *how)
            meter.made[f"pairs {number}"] = cost
            return made

        teacher, rank, size = None, around.lora, parsed(around.student_size)
        if begun is not None:
            if size:
                begin_student(method, lambda start: resized(start, size))  # type: ignore[arg-type]
            elif rank:
                begin_student(method, lambda start: start, lambda network: adapted(network, rank))
            declared = _from_start(method.nets(), lambda: begun.copy(problem))
            method.nets = lambda: declared  # type: ignore[method-assign]
            teacher = ExactTeacher(copy.deepcopy(problem.density), begun.copy(problem))
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                method,
                Path(folder) / "run",
                config,
                streams={name: each for name, each in streams.items() if name in method.needs},
                network=self._fresh,
                teacher=teacher if method.has_teacher else None,
                make_pairs=renew,
                preview=preview,
                meter=meter,
            )
            trainer.run()
            student = trainer.networks.exported("student")
            kept = trainer.checkpoints.kept_weights()
        assert isinstance(student, Denoiser)
        if kept:
            spent = meter.total().evaluations
            with torch.no_grad():
                cost = combined.take_best(student, kept, spent, problem, self.samples, config.seed)
            meter.made["combinations"] = Cost(cost)
        return student.requires_grad_(False).eval()


def _from_start(roles: Mapping[str, Role], copied: Callable[[], Denoiser]) -> dict[str, Role]:
    """The roles as they begin: who copies the teacher's weights, or builds on them, gets those of
    the start, the exact teacher having none."""

    def beginning(role: Role) -> Role:
        if role.start == "teacher" and role.build is None:
            return replace(role, start=None, build=lambda given: copied())
        if role.build is not None:
            build = role.build
            return replace(role, build=lambda given: build({**given, "teacher": copied()}))
        return role

    return {name: beginning(role) for name, role in roles.items()}
