"""A problem's lists on the device, for the Triton kernels: made once per layout and kept.

Order and blocks are told apart by identity and version, not by content, so that a repeated call
neither hashes nor moves much; what is kept goes when the layout's own lists go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from genkit_kernels.problem import Problem

KEPT = 8  # results kept for one tensor: one for each device and each set of text lengths
Lists = tuple[Tensor, int, Tensor, Tensor, int]
_kept = WeakTensorKeyDictionary()


def lists(problem: Problem, device: torch.device) -> Lists:
    """(places, its stride of a batch row, offsets, blocks, number of blocks), int32 on the device.

    places: (rows, slots) the token of each slot, -1 for padding; one row where all are equal.
    offsets, blocks: ids of the key blocks of each query block, as in `Problem`.
    """
    return _with_places(problem, device, False)


def turned(problem: Problem, device: torch.device) -> Lists:
    """The same with the query blocks that see each key block as offsets and blocks."""
    return _with_places(problem, device, True)


def turn(offsets: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Lists of who sees as lists of who is seen by whom: (n + 1,) and (nnz,), ascending."""
    n = offsets.numel() - 1
    rows = torch.arange(n).repeat_interleave(offsets.diff())
    ends = blocks.bincount(minlength=n).cumsum(0)
    return torch.cat([ends.new_zeros(1), ends]), rows[blocks.argsort(stable=True)]


def _with_places(problem: Problem, device: torch.device, backwards: bool) -> Lists:
    def make() -> tuple[Tensor, ...]:
        pair = problem.offsets, problem.blocks
        return tuple(x.to(device, torch.int32) for x in (turn(*pair) if backwards else pair))

    key = (backwards, _bytes(problem.offsets), device)
    offsets, blocks = _kept_for(problem.blocks, key, make)
    return (*_places(problem, device), offsets, blocks, problem.lens.shape[1])


def _places(problem: Problem, device: torch.device) -> tuple[Tensor, int]:
    lens, size = problem.lens, problem.block_size
    if len(lens) > 1 and bool((lens == lens[0]).all()):
        lens = lens[:1]

    def make() -> Tensor:
        valid = torch.arange(size) < lens[..., None]
        places = problem.order.view(-1, size).where(valid, -1)
        return places.flatten(1).to(device, torch.int32)

    places = _kept_for(problem.order, (_bytes(lens), device), make)
    return places, 0 if len(lens) == 1 else places.shape[1]


def _kept_for(x: Tensor, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """What `make` makes of x and of what key names, once; the oldest of KEPT gives way."""
    made: dict[Any, Any] = _kept.setdefault(x, {})  # type: ignore[assignment]
    key = (*key, _version(x))
    if key not in made:
        if len(made) == KEPT:
            del made[next(iter(made))]
        made[key] = make()
    return made[key]


def _bytes(x: Tensor) -> bytes:
    return x.numpy().tobytes()


def _version(x: Tensor) -> int:
    """Changes with every write to x; those of inference mode count none."""
    return 0 if x.is_inference() else x._version
