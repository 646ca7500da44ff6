"""Pipelines as what a run takes them for: its teacher, further teachers, an earlier student.

Those beside the teacher must be kin to it: one samples what the other does, on one path, by the
same other parts.
"""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from genkit import hub
from genkit.denoisers.base import Denoiser
from genkit.denoisers.diffusers import Loaded, as_denoiser, load_denoiser
from genkit.latents import vae_scale


def picture_size(teacher: Loaded) -> int:
    """Pixels of a side of what the teacher draws."""
    return teacher.latent[-1] * vae_scale(teacher.pipeline.components.get("vae"))


def open_teacher(teacher: Any) -> tuple[Loaded, str, dict[str, Any]]:
    """(teacher, its name, what its pipeline remembers) of a pipeline or the name of one."""
    named = isinstance(teacher, str | os.PathLike)
    loaded = load_denoiser(teacher) if named else as_denoiser(teacher)
    facts = hub.trained(loaded.pipeline)
    name = str(teacher) if named else facts.get("description", type(teacher).__name__)
    return loaded, name, facts


def open_kin(role: str, pipeline: Any, teacher: Loaded) -> tuple[Denoiser, str]:
    """(its denoiser, its name) of a pipeline, or the name of one, that plays a role ("student")
    beside the teacher.

    ValueError where it cannot: its samples, path, kind of prediction, text encoder or autoencoder
    are not the teacher's.
    """
    loaded, name, _ = open_teacher(pipeline)
    mine, theirs = loaded.denoiser, teacher.denoiser
    facts = {
        "samples": (loaded.latent, teacher.latent),
        "path": (mine.path.config(), theirs.path.config()),
        "kind of prediction": (mine.kind, theirs.kind),
        "time scale": (mine.time_scale, theirs.time_scale),
        "other parts": (_other_parts(loaded), _other_parts(teacher)),
    }
    for what, (here, there) in facts.items():
        if here != there:
            raise ValueError(
                f"the {role} {name} has {what} {here}, the teacher {there}; give one that is kin "
                "to this teacher"
            )
    return mine, name


def _other_parts(loaded: Loaded) -> dict[str, str]:
    """{part: the beginning of its weights' hash} of all but the denoising network."""
    return {
        name: hub.weights_hash(part)[:12]
        for name, part in loaded.pipeline.components.items()
        if isinstance(part, nn.Module) and name != loaded.family.role
    }


def fill(network: nn.Module, fresh: Any, start: Any) -> None:
    """Give `network`, whose pipeline is to be `fresh`, the weights of the pipeline `start`.
    ValueError where they do not fit.

    Parts of the pipeline that are no part of the network, as a decoder of sounds, stay.
    """
    own = {id(parameter) for parameter in network.parameters()}
    for role, part in fresh.components.items():
        if not isinstance(part, nn.Module) or not own & {id(each) for each in part.parameters()}:
            continue
        earlier = start.components.get(role)
        weights = earlier.state_dict() if isinstance(earlier, nn.Module) else {}
        here, there = (_shapes(each) for each in (part.state_dict(), weights))
        if here != there:
            raise ValueError(
                f"this {type(start).__name__} cannot be the start: its {role} is not of the size "
                "or kind that a teacher of this data has"
            )
        part.load_state_dict(weights)


def _shapes(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: value.shape for name, value in weights.items()}
