"""What a run's training has cost: samples through its networks, forward, and seconds.

This is the one place where evaluations are counted, for every method alike: one evaluation is one
sample that goes through a network of a Denoiser, whoever asks for it, so that a guided teacher's
are two. Heads and other small parts are not counted, nor what only looks at a student (previews,
measurements). Whatever teachers make for training stands in `made`, whether it is made now or lay
on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from genkit.data.streams import Cost
from genkit.denoisers.base import Call, NetworkDenoiser


class Told:
    """A network's call that tells how many samples go through it; copies of it are itself."""

    def __init__(self, plain: Call, count: Callable[[int], None]) -> None:
        self.plain, self.count = plain, count

    def __call__(self, network: nn.Module, x_t: Tensor, *rest: Any) -> Tensor:
        self.count(x_t.shape[0])
        return self.plain(network, x_t, *rest)

    def __deepcopy__(self, memo: dict[int, Any]) -> Told:
        return self


def networks(*modules: nn.Module) -> list[NetworkDenoiser]:
    """All networks in these modules that are evaluated by a call."""
    found = dict.fromkeys(each for module in modules for each in module.modules())
    return [each for each in found if isinstance(each, NetworkDenoiser)]


@contextmanager
def counted(module: nn.Module) -> Iterator[Cost]:
    """What goes through the networks of `module` meanwhile, told to nobody else."""
    cost, before = Cost(), {each: each.call for each in networks(module)}

    def add(rows: int) -> None:
        cost.evaluations += rows

    for each, call in before.items():
        each.call = Told(call.plain if isinstance(call, Told) else call, add)
    try:
        yield cost
    finally:
        for each, call in before.items():
            each.call = call


class Meter:
    """Counts while a step is open.

    trained: what the steps took so far. made: {what: what it took to make}. processes: those that
    run together; the evaluations of this one are taken for those of each.
    """

    def __init__(self) -> None:
        self.trained, self.made, self.processes = Cost(), dict[str, Cost](), 1
        self._open, self._watched = False, list[nn.Module]()

    def _add(self, rows: int) -> None:
        if self._open:
            self.trained.evaluations += rows * self.processes

    def watch(self, *modules: nn.Module) -> None:
        """Count the evaluations of the networks in these modules, and of their copies."""
        self.leave(*modules)
        self._watched = list(modules)
        for each in networks(*modules):
            each.call = Told(each.call, self._add)

    def leave(self, *copies: nn.Module) -> None:
        """Count them no more, nor these copies."""
        for each in networks(*self._watched, *copies):
            if isinstance(each.call, Told):
                each.call = each.call.plain
        self._watched = []

    @contextmanager
    def step(self, stage: str) -> Iterator[None]:
        """One step of training in a stage."""
        began, self._open = time.perf_counter(), True
        try:
            yield
        finally:
            self._open = False
            self.trained.seconds += time.perf_counter() - began

    def total(self) -> Cost:
        """Training, and what was made for it."""
        return sum(self.made.values(), self.trained)

    def state(self) -> dict[str, Any]:
        """What must be remembered over a resume, as plain data."""
        made = {name: asdict(cost) for name, cost in self.made.items()}
        return {"trained": asdict(self.trained), "made": made}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back `state`; what has been made since is kept."""
        self.trained = Cost(**state["trained"])
        self.made = {name: Cost(**cost) for name, cost in state["made"].items()} | self.made
