"""Pieces of work of a bench or a comparison, in one process or in several of one thread each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

Done = TypeVar("Done")
Todo = TypeVar("Todo")


@dataclass(frozen=True)
class Work:
    """One training of a method on a bench, or one thing that stands beside.

    n: samples that are measured. steps: the method's setting, None where it has none. sampled: the
    numbers of steps it is sampled at. max_steps, pairs: its plan.
    """

    bench: str
    name: str
    n: int | None
    budget: str
    steps: int | None = None
    sampled: tuple[int, ...] = ()
    seed: int = 0
    max_steps: int = 0
    pairs: int = 0

    @property
    def key(self) -> str:
        """What its plan is kept under."""
        return f"{self.bench}/{self.name}/{self.steps}"


def spread(
    do: Callable[[Todo], Done], todo: Sequence[Todo], jobs: int
) -> Iterator[tuple[Todo, Done]]:
    """(work, what came of it) as they are done, by `jobs` processes; here where that is 1.

    What comes of a piece of work does not depend on the number of processes.
    """
    if jobs == 1 or len(todo) < 2:
        with _one_thread():
            for work in todo:
                yield work, do(work)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin) as pool:
        futures: dict[Any, Todo] = {pool.submit(do, work): work for work in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    import torch

    torch.set_num_threads(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread meanwhile, so that figures are those of a process of its own."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
