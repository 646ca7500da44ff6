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

from torch import nn

from genkit.data.streams import Cost
from genkit.denoisers.base import NetworkDenoiser


def tell(module: nn.Module, count: Callable[[int], None] | None) -> None:
    """Let every network below `module` tell its evaluations to `count`; copies of it will too."""
    for each in module.modules():
        if isinstance(each, NetworkDenoiser):
            each.count = count


@contextmanager
def counted(module: nn.Module) -> Iterator[Cost]:
    """What goes through the networks of `module` meanwhile, whoever else counts them."""
    cost = Cost()

    def add(rows: int) -> None:
        cost.evaluations += rows

    networks = [each for each in module.modules() if isinstance(each, NetworkDenoiser)]
    before = [each.count for each in networks]
    for each in networks:
        each.count = add
    try:
        yield cost
    finally:
        for each, count in zip(networks, before, strict=True):
            each.count = count


class Meter:
    """Counts while a step is open.

    trained: what the steps took so far. made: {what: what it took to make}. processes: those that
    run together; the evaluations of this one are taken for those of each.
    """

    def __init__(self) -> None:
        self.trained, self.made, self.processes = Cost(), dict[str, Cost](), 1
        self._open, self._watched = False, list[nn.Module]()

        # A function, which a copied network shares with its source; a method would be copied.
        def add(rows: int) -> None:
            if self._open:
                self.trained.evaluations += rows * self.processes

        self._add = add

    def watch(self, *modules: nn.Module) -> None:
        """Count the evaluations of the networks in these modules, and of their copies."""
        self._watched += modules
        for module in modules:
            tell(module, self._add)

    def leave(self, *copies: nn.Module) -> None:
        """Count them no more, nor these copies."""
        for module in (*self._watched, *copies):
            tell(module, None)
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
