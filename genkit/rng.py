"""Counter-based random draws: a draw depends on (seed, keys), never on what was drawn before.

A training step draws its noise for the GLOBAL batch from (seed, step, stream) and each process
keeps its slice, so N processes see one process's losses and a run of N processes resumes on M.
Sampling uses one generator per sample, so a picture does not depend on its batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def generator(seed: int, *keys: str | int) -> torch.Generator:
    """A CPU generator whose state is a hash of the seed and the keys (equal on every machine)."""
    text = ":".join(str(part) for part in (seed, *keys))
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def sample_generators(seed: int, n: int, start: int = 0) -> list[torch.Generator]:
    """One generator per sample: sample i of a seed is the same whatever the batch around it."""
    return [generator(seed, "sample", start + i) for i in range(n)]


def sample_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Unit Gaussian noise of `(len(generators), *shape)`, float32, row i from generator i."""
    return torch.cat([torch.randn((1, *shape), generator=each) for each in generators])


class Rng:
    """Random draws of one process for one (seed, keys); draws follow each other on one generator.

    Shapes are LOCAL: `shape[0]` is this process's share of the batch. The whole batch is drawn and
    sliced, at `world` times the cost of the local draw, which is nothing beside a network.
    """

    def __init__(
        self,
        seed: int,
        *keys: str | int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.seed, self.keys, self.rank, self.world = seed, keys, rank, world
        self.device = torch.device(device)
        self._generator = generator(seed, *keys)

    def fork(self, *keys: str | int) -> Rng:
        """An independent stream; the same keys give the same stream, which a second branch of a
        network that must see the same dropout mask relies on."""
        where = {"rank": self.rank, "world": self.world, "device": self.device}
        return Rng(self.seed, *self.keys, *keys, **where)

    def torch_seed(self) -> int:
        """An integer for `torch.manual_seed`, for code that draws from the global generator."""
        return int(torch.randint(2**62, (1,), generator=self._generator))

    def _local(self, draw: torch.Tensor, count: int) -> torch.Tensor:
        return draw[self.rank * count : (self.rank + 1) * count].to(self.device)

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Unit Gaussian draws of the local `shape`."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._local(torch.randn(whole, generator=self._generator, dtype=dtype), shape[0])

    def uniform(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Draws from [0, 1) of the local `shape`."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._local(torch.rand(whole, generator=self._generator, dtype=dtype), shape[0])

    def integers(self, low: int, high: int, shape: Sequence[int]) -> torch.Tensor:
        """Integers of low..high-1 of the local `shape`, int64."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._local(torch.randint(low, high, whole, generator=self._generator), shape[0])

    def generators(self, count: int) -> list[torch.Generator]:
        """One CPU generator per row of this process, for code that draws by itself."""
        seeds = self.integers(0, 2**62, (count,)).tolist()
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def integer(self, low: int, high: int) -> int:
        """One integer of low..high-1, the same in every process (for control flow)."""
        return int(torch.randint(low, high, (1,), generator=self._generator))

    def chance(self, share: float) -> bool:
        """True in a `share` of draws, to a thousandth, the same in every process; nothing is drawn
        for 0."""
        return share > 0 and self.integer(0, 1000) < 1000 * share
