"""One short call per model family: how a network of that class is evaluated.

A call is `(network, x_t, timestep, cond, s) -> tensor`. The table is keyed by class name, which is
what a saved pipeline's config holds; adding a family is one function and one row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genkit.guidance import Cond


def class_conditional(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """genkit's MLPDenoiser."""
    extra = {} if s is None else {"second_timestep": s}
    return network(x_t, timestep, cond["label"], **extra)


def prompted(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """genkit's PromptedNetwork: a text encoder and its network in one."""
    return network(x_t, timestep, cond["tokens"])


CALLS: dict[str, Callable[..., Tensor]] = {
    "MLPDenoiser": class_conditional,
    "PromptedNetwork": prompted,
}


def network_call(network: torch.nn.Module) -> Callable[..., Tensor]:
    """The call of a network's class; ValueError for a class no call is written for."""
    name = type(network).__name__
    if name not in CALLS:
        raise ValueError(
            f"no call is known for {name}; known: {', '.join(CALLS)}. Add one to "
            "genkit/denoisers/calls.py, or pass call= with NetworkDenoiser"
        )
    return CALLS[name]
