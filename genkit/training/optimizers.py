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

SLOW = 0.1  # rate of the parameters that are to learn slower, of the role's own


def rate_factor(role: Role, updates: int, moment: Moment) -> float:
    """What the learning rate is multiplied by: linear warm-up over the optimizer's own first
    updates, times linear decay to 0 over the stage."""
    factor = min(1.0, (updates + 1) / role.warmup) if role.warmup else 1.0
    return factor * (1 - moment.step / moment.steps) if role.decay else factor


class RoleOptimizer:
    """The optimizer of one role; `names` are those of its parameters that train.

    muon, slow: regular expressions of the matrices that Muon trains and of what AdamW trains at a
    tenth of the rate, which comes first; none where they are empty.
    """

    def __init__(self, module: nn.Module, role: Role, muon: str = "", slow: str = "") -> None:
        self.role, self.muon, self.slow = role, muon, slow
        named = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [each for _, each in named]
        assert named, "a trainable role has no parameter that requires a gradient"
        self.restart()

    def restart(self) -> None:
        """Forget the moments and the warm-up."""
        role, fused = self.role, self.parameters[0].device.type in ("cpu", "cuda")
        self.updates = 0
        parts: dict[str, list[tuple[str, Tensor]]] = {"plain": [], "slow": [], "muon": []}
        for name, each in zip(self.names, self.parameters, strict=True):
            parts[self._part(name, each)].append((name, each))
        decay = role.weight_decay
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(parts[part], role.lr, role.betas, weight_decay=decay, fused=fused)
            for part in ("plain", "slow")
            if parts[part]
        ]
        self.rates = [SLOW if part == "slow" else 1.0 for part in parts if parts[part]]
        if parts["muon"]:
            scale = "match_rms_adamw"
            self.optimizers.append(
                torch.optim.Muon(parts["muon"], role.lr, weight_decay=decay, adjust_lr_fn=scale)
            )

    def _part(self, name: str, parameter: Tensor) -> str:
        if self.slow and re.search(self.slow, name):
            return "slow"
        return (
            "muon" if self.muon and parameter.ndim == 2 and re.search(self.muon, name) else "plain"
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
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            now = rate * lr * rate_factor(self.role, self.updates, moment)
            optimizer.param_groups[0]["lr"] = now
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
