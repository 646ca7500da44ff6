"""One short call per model family: how a network of that class is evaluated.

A call is `(network, x_t, timestep, cond, s) -> tensor`. The table is keyed by class name, which is
what a saved pipeline's config holds; adding a family is one function and one row. Config keys that
ask for more inputs than a call gives are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from genkit.denoisers.preconditioned import preconditioned
from genkit.guidance import Cond


def class_conditional(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """genkit's MLPDenoiser."""
    return network(x_t, timestep, cond["label"], **_more(cond, s))


def prompted(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """genkit's PromptedNetwork: a text encoder and its network in one."""
    return network(x_t, timestep, cond["tokens"])


def speech(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """genkit's SpeechDecoder with its EDM preconditioning: x_0 at sigma = timestep, 0 where a
    sample has no frames; without a mask all are there."""
    mask = cond["mask"] if "mask" in cond else x_t.new_ones(x_t.shape[:2])
    config = network.config

    def bare(x: Tensor, level: Tensor) -> Tensor:
        return network(x, level, cond["text"], cond["voice"], mask)

    return preconditioned(bare, x_t, timestep, config["sigma_data"], config["sigma_min"], mask)


def speech_training(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """genkit's SpeechNetwork, whose encoder has read the conditions already."""
    return speech(network.network, x_t, timestep, cond)


MUSIC = ("bpm", "key", "instrument", "plan")  # conditions of music beside its text


def music(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """genkit's MusicTransformer."""
    return network(x_t, timestep, cond["text"], **{name: cond[name] for name in MUSIC})


def music_training(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """genkit's TaggedNetwork, which reads tokens."""
    return network(x_t, timestep, cond["tokens"], **{name: cond[name] for name in MUSIC})


def unet(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """diffusers' UNet2DModel, with class labels where it has classes."""
    value = network(x_t, timestep, class_labels=cond.get("label"), return_dict=False)[0]
    return _mean(value, x_t)


def text_unet(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """diffusers' UNet2DConditionModel, conditioned on text alone (SD 1.5, 2.1), and on the guidance
    scale where it has a place for it."""
    text, scale = cond["encoder_hidden_states"], None
    if "w" in cond:
        width = network.config["time_cond_proj_dim"]
        scale = embedded_guidance(cond["w"], width).to(x_t.dtype)
    value = network(
        x_t, timestep, encoder_hidden_states=text, timestep_cond=scale, return_dict=False
    )[0]
    return _mean(value, x_t)


def pixart(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """diffusers' PixArtTransformer2DModel: alpha and sigma with their mask, ours without one; and
    genkit's TextTransformer, with its further inputs."""
    size = {name: cond.get(name) for name in ("resolution", "aspect_ratio")}
    value = network(
        x_t,
        encoder_hidden_states=cond["encoder_hidden_states"],
        encoder_attention_mask=cond.get("attention_mask"),
        timestep=timestep,
        added_cond_kwargs=size,
        return_dict=False,
        **_more(cond, s),
    )[0]
    return _mean(value, x_t)


def stable_diffusion_3(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """diffusers' SD3Transformer2DModel."""
    return network(
        x_t,
        timestep=timestep,
        encoder_hidden_states=cond["encoder_hidden_states"],
        pooled_projections=cond["pooled_projections"],
        return_dict=False,
    )[0]


def embedded_guidance(w: Tensor, width: int) -> Tensor:
    """(b,) guidance scales as (b, width), the way Stable Diffusion's pipeline embeds its own for a
    network with `time_cond_proj_dim`: sines and cosines of 1000 (w - 1) (LCM, arXiv 2310.04378)."""
    half = width // 2
    rate = torch.log(torch.tensor(10000.0)) / (half - 1)
    frequency = torch.exp(torch.arange(half, dtype=torch.float32) * -rate).to(w.device)
    angle = ((w.float() - 1) * 1000.0)[:, None] * frequency[None]
    return torch.cat([torch.sin(angle), torch.cos(angle)], 1)


def _more(cond: Cond, s: Tensor | None) -> dict[str, Tensor]:
    """The inputs that some of genkit's networks have beside the first time and the condition."""
    more = {} if s is None else {"second_timestep": s}
    return more | {"guidance": cond["w"]} if "w" in cond else more


def causal_frames(
    network: Any, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None
) -> Tensor:
    """genkit's CausalVideoTransformer: what is past, clean frames or a cache, is a condition."""
    past, told = cond.get("past"), cond.get("past_timestep")
    return network(x_t, timestep, cond["action"], past, told, cond.get("cache"))


def _mean(value: Tensor, x_t: Tensor) -> Tensor:
    """The prediction itself, of a network whose other half of channels is a learned variance."""
    return value if value.shape == x_t.shape else value.chunk(2, dim=1)[0]


CALLS: dict[str, Callable[..., Tensor]] = {
    "MLPDenoiser": class_conditional,
    "PromptedNetwork": prompted,
    "CausalVideoTransformer": causal_frames,
    "SpeechDecoder": speech,
    "SpeechNetwork": speech_training,
    "MusicTransformer": music,
    "TaggedNetwork": music_training,
    "UNet2DModel": unet,
    "UNet2DConditionModel": text_unet,
    "PixArtTransformer2DModel": pixart,
    "TextTransformer": pixart,
    "SD3Transformer2DModel": stable_diffusion_3,
}


def _own_encoder(
    network: Any, cond: Cond, x_0: Tensor | None, mask: Tensor | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return network.condition(cond, x_0, mask)


# Networks with a condition encoder that trains with them and has losses of its own.
ENCODERS: dict[str, Callable[..., tuple[dict[str, Tensor], dict[str, Tensor]]]] = {
    "SpeechNetwork": _own_encoder,
}

# genkit's networks around others, which are called as those are.
AROUND = ("RoutedNetwork", "StyledNetwork")

# {class: {config key: the values a call serves}}; any other value asks for inputs no call gives.
SERVED: dict[str, dict[str, Collection[Any]]] = {
    "MLPDenoiser": {"guidance_input": (None, False)},
    "TextTransformer": {"guidance_input": (None, False)},
    "UNet2DModel": {"time_embedding_type": ("positional",), "class_embed_type": (None,)},
    "UNet2DConditionModel": {
        name: (None,)
        for name in (
            "class_embed_type",
            "num_class_embeds",
            "addition_embed_type",
            "encoder_hid_dim_type",
            "time_cond_proj_dim",
        )
    },
}


def network_call(network: torch.nn.Module) -> Callable[..., Tensor]:
    """The call of a network's class; ValueError for a class no call is written for, and for a
    config that asks for other inputs."""
    name = type(network).__name__
    if name in AROUND:
        return network_call(network.inner)  # type: ignore[arg-type]
    if name not in CALLS:
        raise ValueError(
            f"no call is known for {name}; known: {', '.join(CALLS)}. Give yours, as "
            "NetworkDenoiser(network, call, path, kind, time_scale) with call(network, x_t, "
            "timestep, cond, s), or add one to genkit/denoisers/calls.py"
        )
    config: Any = network.config if name in SERVED else {}
    for key, served in SERVED.get(name, {}).items():
        if config.get(key) not in served:
            raise ValueError(
                f"{name} with {key}={config.get(key)!r} in its config is not supported as a "
                "teacher's; give its call yourself, with NetworkDenoiser(network, call, path, ...)"
            )
    return CALLS[name]
