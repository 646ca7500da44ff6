"""MSD: several students, each distilled on a part of the conditions, and a router between them.

Song et al. 2024 (arXiv 2410.23274). A score method (`inner`, by default DMD2) trains K students at
once, each with its own fake score, head and average; a row of a batch goes through the students of
its condition alone, which is all that the inner method does not know. Conditions are split into
disjoint parts: classes consecutively into equal ones, as in the paper, or as `routes` says; prompts
by k-means over the first batch's embeddings (parts of unequal size; the paper's clusters them
likewise). With one student it is the inner method, bit for bit.
Faithful but for: gradients are clipped, and those of the matching normalised, over all students
together; where the head reads the frozen teacher, one serves all; no filter of conditions.
Students of another size (--student-size), which cannot begin as the teacher, first learn its own
predictions at every noise level: teacher score matching, a stage (`tsm_share`), of each on its own
part. Their fake scores are of the teacher's size and begin as it.
Samples without a class, such as those of guidance on top, come from the first student.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from genkit import terms
from genkit.methods import base, dmd2
from genkit.methods.base import Batch, Losses, Moment, Role, Roles, Stage
from genkit.networks.routed import ROUTED, RoutedDenoiser, RoutedHead, Router, routed
from genkit.rng import Rng
from genkit.sampling import Sampler
from genkit.times import uniform

TSM = "teacher score matching"


class Method(base.Method):
    family = "distribution"
    paper = "arXiv 2410.23274"
    needs = ("data", "pairs")

    @dataclass
    class Config(dmd2.Method.Config):
        students: int = 4
        """How many there are."""
        routes: tuple[int, ...] = ()
        """The student, from 0 on, of each class; empty: equal parts of consecutive classes."""
        inner: str = "dmd2"
        """The method that trains them, which takes of these settings those it has itself."""
        tsm_share: float | None = None
        """Share of the student's steps in which it learns the teacher's own predictions first; by
        default 0.3 for students of another size, 0 for those that begin as the teacher."""

        def take_teacher(self, guidance: float, sampler: Sampler, resized: bool) -> None:
            super().take_teacher(guidance, sampler, resized)
            if self.tsm_share is None:
                self.tsm_share = 0.3 if resized else 0.0

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if config.inner == self.name:
            raise ValueError("msd cannot be its own inner method; give dmd2")
        try:
            inner = importlib.import_module(f"genkit.methods.{config.inner}").Method
        except ModuleNotFoundError:
            raise ValueError(f"no method is called {config.inner!r}; give dmd2") from None
        if not inner.has_teacher:
            raise ValueError(f"{config.inner} has no teacher to distil; give dmd2 as inner")
        own = {field.name: getattr(config, field.name) for field in fields(config)}
        names = [field.name for field in fields(inner.Config) if field.name in own]
        chosen = inner.Config(**{name: own[name] for name in names})
        self.inner: base.Method = inner(chosen, *args, **kwargs)
        self.needs = self.inner.needs  # type: ignore[misc]
        if config.tsm_share and "data" not in self.needs:
            raise ValueError(f"teacher score matching needs data, which {config.inner} does not")
        self.router = self._router()
        self._fitted = False

    def _router(self) -> Router:
        count, uncond = self.config.students, self.uncond or {}
        if count < 1:
            raise ValueError(f"students is {count}; give at least 1")
        if "label" in uncond:
            classes = int(uncond["label"])
            router = Router(count, classes + 1, 0)
            router.table[:classes] = torch.tensor(partition(self.config.routes, count, classes))
            return router
        if ROUTED[1] not in uncond:
            raise ValueError("this data has neither classes nor prompts to be routed by")
        if self.config.routes:
            raise ValueError("routes are of classes, and this data has prompts; leave them out")
        return Router(count, 0, uncond[ROUTED[1]].shape[-1])

    def stages(self) -> list[Stage]:
        share, stages = self.config.tsm_share, self.inner.stages()
        if not share:
            return stages
        first = Stage(TSM, share, guidance=stages[0].guidance)
        return [first, *(replace(each, share=each.share * (1 - share)) for each in stages)]

    def nets(self) -> dict[str, Role]:
        return {name: self._several(role) for name, role in self.inner.nets().items()}

    def _several(self, role: Role) -> Role:
        """A role of the inner method as one of K networks."""
        if role.build is None:
            change = role.change or (lambda network: network)
            return replace(role, change=lambda given: routed(change(given), self.router))
        build = role.build

        def heads(given: Mapping[str, nn.Module]) -> nn.Module:
            firsts = {
                name: each.one(0) if isinstance(each, RoutedDenoiser) else each
                for name, each in given.items()
            }
            return RoutedHead(build(firsts), self.config.students)

        return replace(role, build=heads)

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        return [("student",)] if moment.stage.name == TSM else self.inner.turns(moment)

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        self.inner.scheduler = self.scheduler
        if not self._fitted:
            self._fit(roles, batch, rng)
        if moment.stage.name != TSM:
            return self.inner.loss(roles, batch, moment, rng)
        data, student = batch["data"], roles["student"]
        x_0, cond = data["x_0"], data["cond"]
        t, eps = uniform(self.path, x_0.shape[:1], rng), self.path.noise(x_0.shape, rng)
        x_t = self.path.add_noise(x_0, eps, t)
        with torch.no_grad():
            teacher = roles["teacher"].predict(x_t, t, cond, student.kind)
        error = terms.squared(
            student.predict(x_t, t, cond, student.kind), teacher, data.get("mask")
        )
        return {"total": error.mean()}

    def _fit(self, roles: Roles, batch: Batch, rng: Rng) -> None:
        """Split prompts by those of the first batch, unless a checkpoint has done so."""
        self._fitted = True
        routers = [m for net in roles.values() for m in net.modules() if isinstance(m, Router)]
        if not self.router.centroids.numel() or routers[0].centroids.any():
            return
        if rng.world > 1:
            raise ValueError(
                "prompts are split by one process and from one whole batch; start this run with "
                "one process and accumulate 1, and go on with as many as you like"
            )
        routers[0].fit(next(iter(batch.values()))["cond"][ROUTED[1]])
        for each in routers[1:]:
            each.load_state_dict(routers[0].state_dict())

    def sampler(self) -> Sampler:
        return self.inner.sampler()

    def state_dict(self) -> dict[str, Tensor]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.inner.load_state_dict(state)


def partition(routes: tuple[int, ...], count: int, classes: int) -> list[int]:
    """The student of each class; ValueError unless every class and every student has its part."""
    if not classes:
        raise ValueError("this data has no classes to be routed by")
    if not routes and count > classes:
        raise ValueError(f"{count} students for {classes} classes; give at most one for each")
    given = list(routes) or [label * count // classes for label in range(classes)]
    if len(given) < classes:
        raise ValueError(
            f"routes leave class {len(given)} out; give a student for each of {classes} classes"
        )
    if len(given) > classes:
        raise ValueError(f"routes name {len(given)} classes, and there are {classes}")
    if not set(given) <= set(range(count)):
        wrong = next(each for each in given if not 0 <= each < count)
        raise ValueError(f"routes name student {wrong}; {count} students are 0 to {count - 1}")
    if idle := set(range(count)) - set(given):
        raise ValueError(f"routes give student {min(idle)} no class; give fewer students")
    return given
