"""A trained network of one time as one of two, for students that predict mean velocities."""

from __future__ import annotations

from typing import Any

from torch import nn

from genkit.denoisers.base import Denoiser, NetworkDenoiser


def with_second_time(denoiser: nn.Module) -> Denoiser:
    """The denoiser with a network of two times that begins as its own of one, whose second input
    is zero-initialised; itself where it has one, ValueError for a class of networks without."""
    assert isinstance(denoiser, NetworkDenoiser), "only a network can be given a second time"
    if denoiser.two_time:
        return denoiser
    network: Any = denoiser.network
    name = type(network).__name__
    if "two_time" not in network.config:
        raise ValueError(
            f"{name} has no second time input, which a mean velocity needs; use a method for one "
            "time, or a teacher whose network has two_time in its config"
        )
    # Names with an underscore are diffusers' own notes, such as which values were the defaults.
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    wider = type(network).from_config(config | {"two_time": True})
    missing, unexpected = wider.load_state_dict(network.state_dict(), strict=False)
    if unexpected or not missing or any("second_time" not in key for key in missing):
        raise ValueError(f"the weights of this {name} are not those of one with a second time")
    wider = wider.to(next(network.parameters()).device).train(network.training)
    return NetworkDenoiser(
        wider, denoiser.call, denoiser.path, denoiser.kind, denoiser.time_scale, two_time=True
    )
