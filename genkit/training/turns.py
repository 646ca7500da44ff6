"""The inner loop: one turn is one loss on one batch and one step of every role it names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor

from genkit.data.streams import Stream
from genkit.methods.base import Method, Moment, Roles
from genkit.rng import Rng
from genkit.training.config import TrainerConfig
from genkit.training.health import Collapse
from genkit.training.precision import precision_on
from genkit.training.roles import Networks


def make_accelerator(config: TrainerConfig) -> Accelerator:
    """Device, processes and precision of this run.

    ValueError if the batch cannot be cut into equal parts.
    """
    # accelerate keeps the precision of a process's first run; a second one may want another.
    AcceleratorState._reset_state()
    device = PartialState().device
    assert device is not None, "accelerate chooses one"
    accelerator = Accelerator(mixed_precision=precision_on(device, config.mixed_precision))
    parts = accelerator.num_processes * config.accumulate
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size {config.batch_size} cannot be cut into {parts} equal parts "
            f"({accelerator.num_processes} processes x accumulate {config.accumulate})"
        )
    return accelerator


def rows(value: Any, first: int, count: int, device: torch.device) -> Any:
    """Rows first..first+count-1 of every tensor or list in a batch, on the device."""
    if isinstance(value, Mapping):
        return {name: rows(each, first, count, device) for name, each in value.items()}
    part = value if len(value) == count else value[first : first + count]
    return part.to(device) if isinstance(part, Tensor) else part


class Turns:
    """Runs turns and keeps the running means of what they report.

    Batch and noise of turn number `index` are functions of (seed, index), drawn for the whole batch
    and cut by process and by accumulated part: neither number changes the result.
    """

    def __init__(
        self, method: Method, networks: Networks, config: TrainerConfig, accelerator: Accelerator
    ) -> None:
        self.method, self.networks, self.config = method, networks, config
        self.accelerator, self.device = accelerator, accelerator.device
        self.index = 0
        self.streams: dict[str, Stream] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._world = accelerator.num_processes * config.accumulate
        # Reading a loss costs nothing on a CPU; elsewhere it waits for the device, and one process
        # must not stop alone: there the means are looked at when they are logged.
        self._look = self.device.type == "cpu" and accelerator.num_processes == 1

    def run(self, turn: tuple[str, ...], roles: Roles, moment: Moment) -> None:
        """One turn. Collapse if its loss is not finite."""
        networks, parts = self.networks, self.config.accumulate
        networks.take_turn(turn)
        roles.turn = turn
        batch = self._batch()
        prefix = "+".join(turn)
        for part in range(parts):
            losses = self._losses(roles, batch, moment, part)
            total = losses["total"]
            if self._look and not math.isfinite(total.item()):
                raise Collapse(f"the loss of {prefix} turned {total.item()}")
            self.accelerator.backward(total / parts if parts > 1 else total)
            self._add(prefix, losses)
        if self.accelerator.num_processes > 1:
            self._average_gradients(turn)
        self._add(f"{prefix}/norm", networks.step(turn, moment))
        self.index += 1

    def _batch(self) -> dict[str, Any]:
        seed, size = self.config.seed, self.config.batch_size
        return {
            name: self.streams[name].batch(seed, self.index, size) for name in self.method.needs
        }

    def _losses(
        self, roles: Roles, batch: dict[str, Any], moment: Moment, part: int
    ) -> dict[str, Tensor]:
        place = self.accelerator.process_index * self.config.accumulate + part
        rng = Rng(self.config.seed, "noise", self.index, rank=place, world=self._world)
        rng.device = self.device
        self._seed_dropout(rng.fork("dropout", place).torch_seed())
        if self._world > 1:
            count = self.config.batch_size // self._world
            batch = rows(batch, place * count, count, self.device)
        elif self.device.type != "cpu":
            batch = rows(batch, 0, self.config.batch_size, self.device)
        if self.accelerator.mixed_precision == "no":
            return self._with_auxiliary(roles, batch, moment, rng)
        with self.accelerator.autocast():
            return self._with_auxiliary(roles, batch, moment, rng)

    def _with_auxiliary(
        self, roles: Roles, batch: dict[str, Any], moment: Moment, rng: Rng
    ) -> dict[str, Tensor]:
        """The method's losses on conditions as the student's condition encoder reads them, and the
        encoder's own losses with them, equal in weight."""
        read, auxiliary = {}, {}
        for name, stream in batch.items():
            cond, losses = roles["student"].condition(
                stream.get("cond", {}), stream.get("x_0"), stream.get("mask")
            )
            read[name] = {**stream, "cond": cond}
            auxiliary |= {key: value.mean() for key, value in losses.items()}
        found = self.method.loss(roles, read, moment, rng)
        if not auxiliary:
            return found
        return {**auxiliary, **found, "total": found["total"] + sum(auxiliary.values())}

    def _seed_dropout(self, seed: int) -> None:
        # torch.manual_seed would queue the call, with its stack, for every kind of device that is
        # not in use: half a millisecond and a little memory for each turn.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def _average_gradients(self, turn: tuple[str, ...]) -> None:
        # Methods call networks in ways that a wrapped forward does not see (jvp, features by
        # hooks, several calls per loss), so gradients are averaged here, in one message.
        gradients = self.networks.gradients(turn)
        joined = torch.cat([each.flatten() for each in gradients])
        joined = self.accelerator.reduce(joined, reduction="mean")
        assert isinstance(joined, Tensor)
        split = joined.split([each.numel() for each in gradients])
        for old, new in zip(gradients, split, strict=True):
            old.copy_(new.view_as(old))

    @torch.no_grad()
    def _add(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        for key, value in values.items():
            name = f"{prefix}/{key}"
            if name in self._sums:
                self._sums[name] += value
                self._counts[name] += 1
            else:
                self._sums[name], self._counts[name] = value.detach().clone(), 1

    def means(self) -> dict[str, float]:
        """The means of what was reported since the last call, over all processes.

        Collapse if one is not finite.
        """
        if not self._sums:
            return {}
        values = torch.stack([each.float() for each in self._sums.values()])
        values = values / torch.tensor(list(self._counts.values()), device=values.device)
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, reduction="mean")
            assert isinstance(values, Tensor)
        means = dict(zip(self._sums, values.tolist(), strict=True))
        self._sums, self._counts = {}, {}
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise Collapse(f"{broken[0]} turned {means[broken[0]]}")
        return means
