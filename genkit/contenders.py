"""Who is compared with whom, and the samples each of them draws, kept on disk.

Students run at their trained number of steps and guidance, teachers at every one asked for. Samples
are drawn through the pipelines' own call, sample i of a seed from noise i, and kept under their
weights, scheduler, steps, guidance, seed and what was asked, so that a second evaluation costs only
the figures.
"""

from __future__ import annotations

import hashlib
import json as json_format
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from genkit.data.cache import cache_folder
from genkit.hub import trained
from genkit.modalities import Modality
from genkit.sampling import Sampler
from genkit.training.precision import autocast, precision_on

BATCH = 500


@dataclass(frozen=True)
class Contender:
    """One pipeline at one number of steps; guidance as it was trained, or as its card says.

    precision: "bf16" runs its networks in bfloat16.
    """

    label: str
    pipeline: Any
    steps: int
    guidance: float
    precision: str = "no"

    @cached_property
    def weights(self) -> str:
        """Hash of the weights of all its networks."""
        from torch.nn import Module

        from genkit.hub import weights_hash

        parts = self.pipeline.components.values()
        return "".join(weights_hash(part) for part in parts if isinstance(part, Module))

    def key(self, seed: int, n: int, cond: str) -> str:
        """Short hash of everything that determines the samples."""
        scheduler = self.pipeline.scheduler
        parts = {
            "weights": self.weights,
            "scheduler": [type(scheduler).__name__, dict(scheduler.config)],
            "steps": self.steps,
            "guidance": self.guidance,
            "precision": precision_on(self.pipeline.device, self.precision),
            "seed": seed,
            "n": n,
            "cond": cond,
        }
        text = json_format.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def samples(who: Contender, modality: Modality, seed: int, n: int) -> tuple[Tensor, float]:
    """(n raw samples of `seed`, seconds per sample when made), from the cache where it has them."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    file = cache_folder() / "samples" / f"{who.key(seed, n, told(modality, n))}.safetensors"
    if file.exists():
        try:
            with safe_open(file, "pt") as stored:
                return stored.get_tensor("x"), float(stored.metadata()["seconds"])
        except SafetensorError as error:
            raise ValueError(f"{file} cannot be read ({error}); delete it") from error
    x, seconds = _draw(who, modality, seed, n)
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}.part")
    save_file({"x": x.contiguous()}, aside, {"seconds": repr(seconds)})
    os.replace(aside, file)
    return x, seconds


def _draw(who: Contender, modality: Modality, seed: int, n: int) -> tuple[Tensor, float]:
    import torch

    from genkit.rng import sample_generators

    asked, generators = modality.asked(n), sample_generators(seed, n)
    who.pipeline.set_progress_bar_config(disable=True)
    begin, parts = time.perf_counter(), []
    for first in range(0, n, BATCH):
        rows = slice(first, first + BATCH)
        with autocast(who.pipeline.device, who.precision):
            parts.append(
                modality.generate(
                    who.pipeline, asked[rows], generators[rows], who.steps, who.guidance
                )
            )
    return torch.cat(parts).float().cpu(), (time.perf_counter() - begin) / n


def told(modality: Modality, n: int) -> str:
    """The data set's name and a hash of what its first n samples are asked to be."""
    asked = modality.asked(n)
    words = asked if isinstance(asked, tuple) else asked.tolist()
    return f"{modality.name} {hashlib.sha256(repr(words).encode()).hexdigest()[:16]}"


def named(label: str, guidance: Sequence[float], w: float) -> str:
    """The label of a pipeline at guidance w, which is told where there are several."""
    return label if len(guidance) == 1 else f"{label}, guidance {w:g}"


def contenders(
    label: str,
    pipeline: Any,
    steps: Sequence[int],
    guidance: Sequence[float] = (),
    student_steps: Sequence[int] = (),
) -> list[Contender]:
    """A student at its trained guidance and at every `student_steps`, by default its trained ones;
    a pipeline that has no teacher itself at every `steps` and every guidance, by default its own.
    """
    facts = trained(pipeline)
    own = (float(facts.get("guidance", 1.0)),)
    if facts.get("teacher"):
        numbers = tuple(student_steps) or (facts["steps"],)
        return [Contender(label, at_steps(label, pipeline, k), k, own[0]) for k in numbers]
    scales = tuple(guidance) or own
    return [
        Contender(named(label, scales, w), pipeline, number, w) for w in scales for number in steps
    ]


def takes_any_steps(pipeline: Any) -> bool:
    """Whether a pipeline is a student that its method trains for any number of steps."""
    from genkit import catalogue

    facts = trained(pipeline)
    return bool(facts.get("teacher")) and catalogue.method_class(facts["method"]).any_steps


def at_steps(label: str, student: Any, steps: int) -> Any:
    """A student's pipeline with the sampler that its method gives one of so many steps; ValueError
    where it was trained for its own number alone."""
    from genkit import catalogue
    from genkit.denoisers.diffusers import as_denoiser

    facts = trained(student)
    if steps == facts["steps"]:
        return student
    if not takes_any_steps(student):
        raise ValueError(
            f"{label} was trained by {facts['method']} for its own number of steps, "
            f"{facts['steps']}, alone; leave student_steps out"
        )
    loaded = as_denoiser(student)
    method: Any = catalogue.method_class(facts["method"])
    config = method.Config
    built = method(config(steps=steps), loaded.denoiser.path, loaded.latent)
    return _sampled_by(student, built.sampler())


def opponents(
    label: str,
    teacher: Any,
    steps: Sequence[int],
    orders: Sequence[int],
    guidance: Sequence[float] = (),
) -> list[Contender]:
    """A teacher at every number of steps and every guidance (by default its own), by its own
    scheduler and by solvers of higher order (where there are steps enough for the order to
    matter)."""
    from genkit.denoisers.diffusers import as_denoiser

    scales = tuple(guidance) or (as_denoiser(teacher).guidance,)
    found = []
    for w in scales:
        who = named(label, scales, w)
        found += [Contender(who, teacher, number, w) for number in steps if 1 in orders]
        for order in sorted(set(orders) - {1}):
            for number in (each for each in steps if each >= order):
                other = _sampled_by(teacher, Sampler(number, order=order))
                found.append(Contender(f"{who}, order {order}", other, number, w))
    return found


def _sampled_by(pipeline: Any, sampler: Sampler) -> Any:
    """A pipeline's networks sampled by another sampler."""
    from genkit.denoisers.diffusers import as_denoiser
    from genkit.denoisers.families import rebuilt
    from genkit.hub import make_scheduler

    who = as_denoiser(pipeline).denoiser
    scheduler = make_scheduler(sampler, who.path, who.kind, who.time_scale, who.sigma_data)
    return rebuilt(pipeline, who.network, scheduler)
