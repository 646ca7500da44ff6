"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) of a student's Linear layers, by peft.

The student is a copy of the teacher that trains only its adapters; they begin at zero, so it begins
as the teacher. Merged on export, they leave a network of the teacher's own class and size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from genkit.methods.base import Method, Role


def linear_layers(network: nn.Module) -> list[str]:
    """The names of a network's Linear layers."""
    return [name for name, each in network.named_modules() if isinstance(each, nn.Linear)]


def adapted(denoiser: nn.Module, rank: int) -> nn.Module:
    """A copy of a NetworkDenoiser whose network trains adapters of `rank`, and nothing else.

    ValueError for a rank below 1.
    """
    from peft import LoraConfig

    if rank < 1:
        raise ValueError(f"the LoRA rank is {rank}; give at least 1")
    student: Any = copy.deepcopy(denoiser).requires_grad_(False)
    names = linear_layers(student.network)
    student.network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=names))
    for name, parameter in student.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return student


def merged(network: nn.Module) -> nn.Module:
    """The network with its adapters added to its weights; itself where it has none."""
    if any("lora_" in name for name, _ in network.named_parameters()):
        model: Any = network
        model.fuse_lora()
        model.unload_lora()
    return network


def adapt_student(method: Method, rank: int) -> None:
    """Let the method's student be an adapted copy of the role it starts from."""
    declared = method.nets

    def build(start: str) -> Callable[[Mapping[str, nn.Module]], nn.Module]:
        return lambda given: adapted(given[start], rank)

    def nets() -> dict[str, Role]:
        roles = declared()
        student = roles["student"]
        if student.start is None:
            raise ValueError(f"{method.name} starts from a fresh network; LoRA needs a trained one")
        return roles | {"student": replace(student, start=None, build=build(student.start))}

    method.nets = nets  # type: ignore[method-assign]
