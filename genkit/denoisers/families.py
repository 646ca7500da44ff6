"""The pipelines known as teachers, one row a family: role, latent, text encoding and call.

Everything is read from a pipeline's own configs and by its own `encode_prompt`, so a condition is
what the stock pipeline would give its network. Conditions are named as the network's arguments are
(`encoder_hidden_states`, ...); `arguments` gives them the names of the pipeline's `__call__`.
Not supported: image prompts (IP-Adapter), skip-layer guidance, and sizes other than the network's.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genkit.guidance import Cond
from genkit.sampling import TCD_ETA, starting_scale


@dataclass(frozen=True)
class Family:
    """What is to be known of a pipeline class.

    role: the component name of the denoising network. latent(pipeline): shape of one sample.
    encode(pipeline, prompts): conditions, one row per prompt, float32 on the CPU; None for
    pipelines that take no text. arguments(cond, uncond): keywords of the pipeline's `__call__`,
    uncond (of cond's batch or 1) given where guidance is on. path: the one its networks are made
    for, which a stock scheduler must be of; None: any. unit_start, generator: whether the stock
    loop starts at unit noise whatever the scheduler, and whether it hands its generator to it.
    """

    role: str
    latent: Callable[[Any], tuple[int, ...]]
    encode: Callable[[Any, Sequence[str]], dict[str, Tensor]] | None
    arguments: Callable[[Cond, Cond | None], dict[str, Any]]
    path: str | None = None
    unit_start: bool = False
    generator: bool = True


def _latent(role: str) -> Callable[[Any], tuple[int, ...]]:
    """(channels, height, width) of the network in `role`, whose config gives one size or two."""

    def latent(pipeline: Any) -> tuple[int, ...]:
        config = pipeline.components[role].config
        size = config["sample_size"]
        if size is None:
            raise ValueError(f"the {role}'s config has no sample_size; set the size it is to draw")
        sides = (size, size) if isinstance(size, int) else tuple(size)
        return (config["in_channels"], *sides)

    return latent


def _named(names: Mapping[str, str], **extra: Any) -> Callable[[Cond, Cond | None], dict[str, Any]]:
    """`Family.arguments` that renames conditions; uncond's get the prefix negative_."""

    def arguments(cond: Cond, uncond: Cond | None) -> dict[str, Any]:
        given: dict[str, Any] = {call: cond[name] for name, call in names.items()}
        if uncond is not None:
            for name, call in names.items():
                nothing = uncond[name]
                given[f"negative_{call}"] = nothing.expand(len(cond[name]), *nothing.shape[1:])
        return given | extra

    return arguments


Encoder = Callable[[Any, list[str]], dict[str, Tensor]]


def _reader(read: Encoder) -> Callable[[Any, Sequence[str]], dict[str, Tensor]]:
    """An encoder as `Family.encode`: without gradient, float32, on the CPU."""

    def encode(pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        with torch.no_grad():
            cond = read(pipeline, list(prompts))
        return {name: value.float().cpu() for name, value in cond.items()}

    return encode


# ---- Ours -------------------------------------------------------------------------------------


def _labels(cond: Cond, uncond: Cond | None) -> dict[str, Any]:
    return {"class_labels": cond["label"].tolist()}


def _text_to_image(pipeline: Any, prompts: list[str]) -> dict[str, Tensor]:
    return {"encoder_hidden_states": pipeline.encode_prompt(prompts)}


def _actions(cond: Cond, uncond: Cond | None) -> dict[str, Any]:
    return {"actions": cond["action"].tolist()}


def _frames(pipeline: Any) -> tuple[int, ...]:
    """(frames, channels, height, width) of a clip as the network was trained on."""
    config = pipeline.network.config
    size = config["sample_size"]
    return (config["sample_frames"], config["in_channels"], size, size)


# ---- DDPM, DDIM: pixels without a prompt ------------------------------------------------------


def _unconditional(cond: Cond, uncond: Cond | None) -> dict[str, Any]:
    if cond:
        raise ValueError(
            "the DDPM and DDIM pipelines pass no class label to their network, so they cannot "
            "sample a class-conditional one"
        )
    return {}


# ---- Stable Diffusion 1.5 and 2.1 -------------------------------------------------------------


def _stable_diffusion(pipeline: Any, prompts: list[str]) -> dict[str, Tensor]:
    text, _ = pipeline.encode_prompt(prompts, pipeline._execution_device, 1, False)
    return {"encoder_hidden_states": text}


# ---- PixArt -----------------------------------------------------------------------------------


def _pixart(pipeline: Any, prompts: list[str]) -> dict[str, Tensor]:
    # As its own call: captions are cleaned where the libraries for it are installed.
    clean = all(importlib.util.find_spec(name) for name in ("bs4", "ftfy"))
    text, mask, _, _ = pipeline.encode_prompt(prompts, False, clean_caption=clean)
    cond = {"encoder_hidden_states": text, "attention_mask": mask}
    config = pipeline.transformer.config
    if config["use_additional_conditions"]:
        side = float(config["sample_size"] * pipeline.vae_scale_factor)
        cond["resolution"] = text.new_full((len(text), 2), side)
        cond["aspect_ratio"] = text.new_ones((len(text), 1))
    return cond


# negative_prompt is "" by default and may not be given beside embeddings; binning knows three or
# four sizes only, and at the network's own size does nothing.
_PIXART = Family(
    "transformer",
    _latent("transformer"),
    _reader(_pixart),
    _named(
        {"encoder_hidden_states": "prompt_embeds", "attention_mask": "prompt_attention_mask"},
        negative_prompt=None,
        use_resolution_binning=False,
    ),
    "discrete_vp",
)


# ---- Stable Diffusion 3 -----------------------------------------------------------------------


def _stable_diffusion_3(pipeline: Any, prompts: list[str]) -> dict[str, Tensor]:
    text, _, pooled, _ = pipeline.encode_prompt(
        prompts, None, None, do_classifier_free_guidance=False
    )
    return {"encoder_hidden_states": text, "pooled_projections": pooled}


# ---- Speech -----------------------------------------------------------------------------------


def _frames_of_sound(pipeline: Any) -> tuple[int, ...]:
    """(frames, channels) of a sample as the network was trained on."""
    config = pipeline.network.config
    return (config["sample_size"], config["in_channels"])


def _spoken(cond: Cond, uncond: Cond | None) -> dict[str, Any]:
    raise ValueError("TextToSpeechPipeline is called with texts; it takes no encoded conditions")


# ---- Music ------------------------------------------------------------------------------------


def _played(cond: Cond, uncond: Cond | None) -> dict[str, Any]:
    raise ValueError("MusicPipeline is called with prompts; it takes no encoded conditions")


_DDPM = Family("unet", _latent("unet"), None, _unconditional, "discrete_vp", unit_start=True)

PIPELINES: dict[str, Family] = {
    "ClassConditionalImagePipeline": Family("network", _latent("network"), None, _labels),
    "TextToImagePipeline": Family(
        "network",
        _latent("network"),
        _reader(_text_to_image),
        _named({"encoder_hidden_states": "prompt_embeds"}),
    ),
    "InteractiveVideoPipeline": Family("network", _frames, None, _actions),
    "TextToSpeechPipeline": Family("network", _frames_of_sound, None, _spoken, "edm"),
    "MusicPipeline": Family("network", _frames_of_sound, None, _played),
    "DDPMPipeline": _DDPM,
    "DDIMPipeline": _DDPM,
    "StableDiffusionPipeline": Family(
        "unet",
        _latent("unet"),
        _reader(_stable_diffusion),
        _named({"encoder_hidden_states": "prompt_embeds"}),
        "discrete_vp",
    ),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "StableDiffusion3Pipeline": Family(
        "transformer",
        _latent("transformer"),
        _reader(_stable_diffusion_3),
        _named(
            {
                "encoder_hidden_states": "prompt_embeds",
                "pooled_projections": "pooled_prompt_embeds",
            }
        ),
        "rectified_flow",
        unit_start=True,
        generator=False,
    ),
}


def find_family(pipeline: Any) -> Family:
    """The family of a pipeline's class; ValueError for a class that is not in PIPELINES."""
    name = type(pipeline).__name__
    if name not in PIPELINES:
        raise ValueError(
            f"{name} is not known as a teacher; known: {', '.join(PIPELINES)}. Give the call of "
            "its network yourself, as NetworkDenoiser(network, call, path, kind, time_scale), or "
            "add a row to genkit/denoisers/families.py"
        )
    return PIPELINES[name]


def unconditional(pipeline: Any, family: Family) -> dict[str, Tensor]:
    """The conditions of no condition, batch 1: the empty prompt, the label that means no class, or
    none at all."""
    if family.encode is not None:
        return family.encode(pipeline, [""])
    classes = pipeline.components[family.role].config.get("num_classes")
    return {} if classes is None else {"label": torch.tensor([classes])}


def default_guidance(pipeline: Any) -> float:
    """The guidance_scale a pipeline's own call takes by default; 1 (off) where it takes none."""
    taken = inspect.signature(type(pipeline).__call__).parameters.get("guidance_scale")
    return 1.0 if taken is None or taken.default is None else float(taken.default)


def scheduler_arguments(pipeline: Any) -> dict[str, Any]:
    """Keywords of a stock pipeline's `__call__` by which its scheduler samples as it does by
    itself: such pipelines tell one that takes eta 0, and TCD's own is 0.3."""
    taken = inspect.signature(type(pipeline).__call__).parameters
    strategic = type(pipeline.scheduler).__name__ == "TCDScheduler"
    return {"eta": TCD_ETA} if strategic and "eta" in taken else {}


def rebuilt(pipeline: Any, network: Any, scheduler: Any) -> Any:
    """A pipeline of the same class with `network` in its role, this scheduler, and every other
    component and setting of `pipeline`'s own.

    DDIMPipeline turns any scheduler into DDIM; with another one its students leave as DDPMPipeline,
    which has the same components. ValueError for a scheduler that the stock loop cannot run as we
    do.
    """
    family, owner = find_family(pipeline), type(pipeline)
    _check_loop(owner.__name__, family, scheduler)
    _check_inputs(owner.__name__, network)
    if owner.__name__ == "DDIMPipeline" and type(scheduler).__name__ != "DDIMScheduler":
        from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

        owner = DDPMPipeline
    known = {**pipeline.config, **pipeline.components, family.role: network, "scheduler": scheduler}
    taken = inspect.signature(owner.__init__).parameters
    return owner(**{name: value for name, value in known.items() if name in taken})


def _check_inputs(owner: str, network: Any) -> None:
    """ValueError where a pipeline's own loop would not give the network an input that it needs."""
    ours = owner in ("ClassConditionalImagePipeline", "TextToImagePipeline")
    if not ours and (network.config.get("two_time") or network.config.get("guidance_input")):
        which = "second time" if network.config.get("two_time") else "guidance scale"
        raise ValueError(
            f"{owner} gives its network no {which}, so a student that takes one could not leave as "
            "such a pipeline; use a method without, or one scale of guidance"
        )


def _check_loop(owner: str, family: Family, scheduler: Any) -> None:
    scale = starting_scale(scheduler)
    if family.unit_start and scale != 1:
        raise ValueError(
            f"{owner} starts from unit noise, this sampler from {scale:g} times that; give the "
            "student a sampler that starts at pure noise"
        )
    stochastic = type(scheduler).__name__ == "ConsistencyScheduler"
    if stochastic and scheduler.config["steps"] > 1 and not family.generator:
        raise ValueError(
            f"{owner} hands no generator to its scheduler, so a stochastic student of more than "
            "one step could not be reproduced; train it for one, or with a deterministic sampler"
        )
