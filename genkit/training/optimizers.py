"""One AdamW per trainable role (Loshchilov & Hutter 2019, arXiv 1711.05101), with its schedule.

Fused kernels where torch has them; clipping of the gradient's norm before each step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genkit.methods.base import Moment, Role


def rate_factor(role: Role, updates: int, moment: Moment) -> float:
    """What the learning rate is multiplied by: linear warm-up over the optimizer's own first
    updates, times linear decay to 0 over the stage."""
    factor = min(1.0, (updates + 1) / role.warmup) if role.warmup else 1.0
    return factor * (1 - moment.step / moment.steps) if role.decay else factor


class RoleOptimizer:
    """The optimizer of one role; `names` are those of its parameters that train."""

    def __init__(self, module: nn.Module, role: Role) -> None:
        self.role = role
        named = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [each for _, each in named]
        assert named, "a trainable role has no parameter that requires a gradient"
        self.restart()

    def restart(self) -> None:
        """Forget the moments and the warm-up."""
        role, fused = self.role, self.parameters[0].device.type in ("cpu", "cuda")
        self.updates = 0
        self.adamw = torch.optim.AdamW(
            self.parameters, role.lr, role.betas, weight_decay=role.weight_decay, fused=fused
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
        self.adamw.param_groups[0]["lr"] = lr * rate_factor(self.role, self.updates, moment)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.updates += 1
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The moments, flat: "<parameter>/<moment>"; parameters never stepped have none."""
        state = self.adamw.state
        return {
            f"{name}/{key}": value
            for name, each in zip(self.names, self.parameters, strict=True)
            if each in state
            for key, value in state[each].items()
        }

    def load(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Take back `tensors` and the count of updates."""
        number = {name: i for i, name in enumerate(self.names)}
        state: dict[int, dict[str, Tensor]] = {}
        for flat, value in tensors.items():
            name, key = flat.rsplit("/", 1)
            state.setdefault(number[name], {})[key] = value
        groups = self.adamw.state_dict()["param_groups"]
        self.adamw.load_state_dict({"state": state, "param_groups": groups})
        self.updates = updates
