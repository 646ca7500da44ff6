"""The optimizer of each trainable role, with its schedule: AdamW, and Muon where it is asked for.

AdamW: Loshchilov & Hutter 2019 (arXiv 1711.05101), fused where torch has it. Muon: K. Jordan et al.
2024 (https://kellerjordan.github.io/posts/muon), the momentum of a matrix made orthogonal before
the step, scaled to the size of AdamW's steps (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that
one learning rate serves both. The gradient's norm is clipped before each step.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from genkit.methods.base import Moment, Role


def rate_factor(role: Role, updates: int, moment: Moment) -> float:
    """What the learning rate is multiplied by: linear warm-up over the optimizer's own first
    updates, times linear decay to 0 over the stage."""
    factor = min(1.0, (updates + 1) / role.warmup) if role.warmup else 1.0
    return factor * (1 - moment.step / moment.steps) if role.decay else factor


class RoleOptimizer:
    """The optimizer of one role; `names` are those of its parameters that train.

    muon: a regular expression of the matrices that Muon trains; none where it is empty.
    """

    def __init__(self, module: nn.Module, role: Role, muon: str = "") -> None:
        self.role, self.muon = role, muon
        named = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [each for _, each in named]
        assert named, "a trainable role has no parameter that requires a gradient"
        self.restart()

    def restart(self) -> None:
        """Forget the moments and the warm-up."""
        role, fused = self.role, self.parameters[0].device.type in ("cpu", "cuda")
        self.updates = 0
        named = list(zip(self.names, self.parameters, strict=True))
        matrices = [
            (name, each)
            for name, each in named
            if self.muon and each.ndim == 2 and re.search(self.muon, name)
        ]
        taken = {name for name, _ in matrices}
        others = [(name, each) for name, each in named if name not in taken]
        self.optimizers: list[torch.optim.Optimizer] = []
        if others:
            decay = role.weight_decay
            self.optimizers.append(
                torch.optim.AdamW(others, role.lr, role.betas, weight_decay=decay, fused=fused)
            )
        if matrices:
            scale = "match_rms_adamw"
            self.optimizers.append(
                torch.optim.Muon(
                    matrices, role.lr, weight_decay=role.weight_decay, adjust_lr_fn=scale
                )
            )

    def train(self, on: bool) -> None:
        """Whether the role's parameters collect gradients in the coming turn."""
        for each in self.parameters:
            each.requires_grad_(on)

    def step(self, moment: Moment, name: str) -> Tensor | None:
        """Clip, step, drop the gradients; returns the gradient's norm where it is clipped."""
        norm = None
        if self.role.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.role.clip)
        lr = moment.stage.lr.get(name, self.role.lr)
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = lr * rate_factor(self.role, self.updates, moment)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The moments, flat: "<parameter>/<moment>"; parameters never stepped have none."""
        return {
            f"{name}/{key}": value
            for optimizer in self.optimizers
            for name, each in _named(optimizer)
            if each in optimizer.state
            for key, value in optimizer.state[each].items()
        }

    def load(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Take back `tensors` and the count of updates."""
        moments: dict[str, dict[str, Tensor]] = {}
        for flat, value in tensors.items():
            name, key = flat.rsplit("/", 1)
            moments.setdefault(name, {})[key] = value
        for optimizer in self.optimizers:
            mine = enumerate(name for name, _ in _named(optimizer))
            state = {i: moments[name] for i, name in mine if name in moments}
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.updates = updates


def _named(optimizer: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    """The parameters of an optimizer and their names, in its own order."""
    group = optimizer.param_groups[0]
    return list(zip(group["param_names"], group["params"], strict=True))
