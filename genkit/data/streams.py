"""Streams: where a method's batches come from, as a pure function of (seed, index).

A stream has no state: batch number `index` is the same whoever asks and whenever, which makes a
resumed run bit-exact and lets every process take its slice of the same global batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from genkit.rng import generator


@dataclass
class Cost:
    """What something took: samples that went through networks, forward, and seconds."""

    evaluations: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.evaluations + other.evaluations, self.seconds + other.seconds)


class Stream(Protocol):
    """Anything that gives batches by number."""

    def batch(self, seed: int, index: int, size: int) -> dict[str, Any]:
        """The `index`-th global batch of `size` rows."""
        ...


def _rows(value: Any, index: Tensor) -> Any:
    if isinstance(value, Mapping):
        return {name: _rows(each, index) for name, each in value.items()}
    return value[index]


class TensorStream:
    """A stream over tensors in memory, {"x_0": (n, ...), "cond": {"label": (n,)}, ...}.

    Rows are shuffled without replacement within an epoch; batches run over the epochs' ends.
    cost: what making them took, where networks did. ValueError if the tensors differ in length or
    are empty.
    """

    def __init__(self, tensors: Mapping[str, Any], cost: Cost | None = None) -> None:
        self.tensors, self.cost = dict(tensors), cost or Cost()
        lengths = {len(each) for each in _leaves(self.tensors)}
        if len(lengths) != 1:
            raise ValueError(
                f"the stream's tensors have {sorted(lengths)} rows; give equal lengths"
            )
        self.n = lengths.pop()
        if self.n == 0:
            raise ValueError("the stream is empty; give at least one sample")
        self._order: tuple[tuple[int, int], Tensor] = ((0, -1), torch.empty(0))

    def __len__(self) -> int:
        return self.n

    def _epoch(self, seed: int, epoch: int) -> Tensor:
        if self._order[0] != (seed, epoch):
            order = torch.randperm(self.n, generator=generator(seed, "epoch", epoch))
            self._order = ((seed, epoch), order)
        return self._order[1]

    def batch(self, seed: int, index: int, size: int) -> dict[str, Any]:
        """The `index`-th global batch of `size` rows."""
        first, parts = index * size, []
        while size > 0:
            epoch, place = divmod(first, self.n)
            part = self._epoch(seed, epoch)[place : place + size]
            parts.append(part)
            first, size = first + len(part), size - len(part)
        return _rows(self.tensors, torch.cat(parts))


def _leaves(tensors: Mapping[str, Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for each in tensors.values():
        found.extend(_leaves(each) if isinstance(each, Mapping) else [each])
    return found
