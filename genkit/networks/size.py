"""A student of another size: a fresh network of the teacher's class with other numbers in its
config, and what else the denoiser around it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from genkit.denoisers.base import Around, Denoiser, NetworkDenoiser

# What data and teacher fix: a student of other numbers here could not take the same samples.
FIXED = ("in_channels", "out_channels", "sample_size", "num_classes")


def parsed(size: Sequence[str]) -> dict[str, int]:
    """("width=96", "depth=2") as {"width": 96, "depth": 2}; ValueError for what is not so."""
    found = {}
    for each in size:
        name, _, value = each.partition("=")
        if not (name and value.isdigit() and int(value)):
            raise ValueError(
                f"student_size is {each!r}; give a name in the network's config and a number of at "
                "least 1, such as width=96"
            )
        found[name] = int(value)
    return found


def resized(denoiser: Denoiser, changes: Mapping[str, int]) -> Denoiser:
    """The denoiser with a fresh network, of its own class and config but for `changes`.

    ValueError for a name that is no number in the config, or one that the data fix.
    """
    student = copy.deepcopy(denoiser).requires_grad_(True)
    holder: Any = student
    while isinstance(holder, Around):
        holder = holder.inner
    assert isinstance(holder, NetworkDenoiser), "only a network can be of another size"
    holder.network = _fresh(holder.network, changes)
    return student


def _fresh(network: Any, changes: Mapping[str, int]) -> nn.Module:
    # Names with an underscore are diffusers' own notes, such as which values were the defaults.
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    numbers = [
        key
        for key, value in config.items()
        if isinstance(value, int) and not isinstance(value, bool) and key not in FIXED
    ]
    for name in changes:
        if name not in numbers:
            raise ValueError(
                f"student_size names {name!r}; of a {type(network).__name__} there can be changed: "
                f"{', '.join(numbers)}"
            )
    fresh = type(network).from_config(config | dict(changes))
    if type(network).__name__ == "PixArtTransformer2DModel":  # diffusers leaves it to checkpoints
        from genkit.networks.text import initialise

        initialise(fresh)
    return fresh.train(network.training)


def parameters(module: nn.Module, trained: bool = False) -> int:
    """How many numbers a module holds, or trains."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)
