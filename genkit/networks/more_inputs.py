"""A trained network with one more input, zero-initialised, so that it begins as it was.

A second time is for students that predict mean velocities, the guidance scale for those that take
it as an input instead of a second evaluation (Meng et al. 2022, arXiv 2210.03142, sec. 3.1; LCM,
arXiv 2310.04378, sec. 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers.models.attention import AttentionMixin
from torch import nn

from genkit.denoisers.base import Denoiser, NetworkDenoiser
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.text_transformer import TextTransformer

# {class of network: (the class that has the input, what asks for it in its config)}
Wider = Mapping[str, tuple[type | None, dict[str, Any]]]
SECOND_TIME: Wider = {
    "MLPDenoiser": (MLPDenoiser, {"two_time": True}),
    "PixArtTransformer2DModel": (TextTransformer, {"two_time": True}),
    "TextTransformer": (TextTransformer, {"two_time": True}),
}
GUIDANCE: Wider = {
    "MLPDenoiser": (MLPDenoiser, {"guidance_input": True}),
    "PixArtTransformer2DModel": (TextTransformer, {"guidance_input": True}),
    "TextTransformer": (TextTransformer, {"guidance_input": True}),
    # diffusers' own place for it, which Stable Diffusion's pipeline serves; None: its own class.
    "UNet2DConditionModel": (None, {"time_cond_proj_dim": 256}),
}


def with_second_time(denoiser: nn.Module) -> Denoiser:
    """The denoiser with a network of two times that begins as its own of one; itself where it has
    one, ValueError for a class of networks without."""
    assert isinstance(denoiser, NetworkDenoiser), "only a network can be given a second time"
    if denoiser.two_time:
        return denoiser
    missing = "has no second time input, which a mean velocity needs"
    return _widened(denoiser, SECOND_TIME, missing, two_time=True)


def with_guidance(denoiser: nn.Module) -> Denoiser:
    """The denoiser with a network that takes the guidance scale as cond["w"] and begins as its own,
    whatever the scale; ValueError for a class of networks without a place for it."""
    assert isinstance(denoiser, NetworkDenoiser), "only a network can be given a guidance scale"
    missing = "has no input for the guidance scale; give one scale instead of a range"
    return _widened(denoiser, GUIDANCE, missing, denoiser.two_time)


def _widened(denoiser: NetworkDenoiser, known: Wider, missing: str, two_time: bool) -> Denoiser:
    network: Any = denoiser.network
    first = next(denoiser.network.parameters())
    name = type(network).__name__
    if name not in known:
        raise ValueError(f"{name} {missing}; classes that have one: {', '.join(known)}")
    owner, asked = known[name]
    # Names with an underscore are diffusers' own notes, such as which values were the defaults.
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    wider: Any = (owner or type(network)).from_config(config | asked)
    new, unexpected = wider.load_state_dict(network.state_dict(), strict=False)
    added = {name for name, _ in wider.named_parameters()} - set(network.state_dict())
    if unexpected or set(new) != added or not added:
        raise ValueError(f"the weights of this {name} are not those of its class")
    for key in added:
        nn.init.zeros_(wider.get_parameter(key))
    if isinstance(network, AttentionMixin):
        wider.set_attn_processor(network.attn_processors)
    # nn.Module's own: diffusers' warns of parts to keep in float32 even where there are none.
    nn.Module.to(wider, first.device, first.dtype)
    wider.train(denoiser.network.training)
    return NetworkDenoiser(
        wider, denoiser.call, denoiser.path, denoiser.kind, denoiser.time_scale, two_time
    )
