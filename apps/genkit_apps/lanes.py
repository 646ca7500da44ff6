"""A pipeline beside which another may draw: how it is opened, called, and told of.

Any pipeline of genkit or diffusers that makes pictures of a prompt, or of class labels; and ours
that make sounds of a text or a prompt, or clips of actions. What is left open in a call is filled
with the trained values; a stock pipeline that was saved without them gets the defaults of its own
`__call__`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST = 64  # pictures of one call
MADE = {"pictures": "drawn", "sounds": "heard", "clips": "played"}
LIGHT = 50_000_000  # weights below which a race takes moments on a processor


@dataclass(frozen=True)
class Asked:
    """What a person asks for. n: pictures per prompt. steps, guidance: None means as trained.
    negative: what is to be avoided, "" for nothing. more: further arguments by name, for whichever
    pipeline takes them."""

    prompt: str
    seed: int = 0
    n: int = 1
    steps: int | None = None
    guidance: float | None = None
    negative: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lane:
    """An opened pipeline. role: "teacher" or "student". steps, guidance: what it is called with by
    default, None where it knows itself. record: the `_genkit` defaults, {} where it has none."""

    name: str
    role: str
    pipeline: Any
    steps: int | None
    guidance: float | None
    record: dict[str, Any]

    @classmethod
    def open(cls, name: str, role: str) -> Lane:
        """The pipeline of a shipped name, a folder or a hub id, on the GPU where there is one.

        ValueError for what cannot be opened, and for pipelines that take neither prompt nor label.
        """
        import torch

        from genkit.hub import Pipeline

        pipeline = Pipeline.from_pretrained(name)
        if torch.cuda.is_available():
            pipeline = pipeline.to("cuda")
        pipeline.set_progress_bar_config(disable=True)
        return cls.of(name, role, pipeline)

    @classmethod
    def of(cls, name: str, role: str, pipeline: Any) -> Lane:
        """The lane of an opened pipeline; ValueError where it takes neither prompt nor label, text
        nor actions."""
        from genkit.hub import trained

        taken = inspect.signature(type(pipeline).__call__).parameters
        labelled = "class_labels" in taken and "network" in pipeline.components
        if not labelled and not {"prompt", "text", "actions"} & set(taken):
            raise ValueError(
                f"{name} is a {type(pipeline).__name__}, which takes no prompt; the page shows "
                "pipelines that make something of a prompt, or follow actions"
            )
        record = trained(pipeline)
        own = {key: value.default for key, value in taken.items()}
        steps = record.get("steps", own.get("num_inference_steps"))
        guidance = record.get("guidance", own.get("guidance_scale"))
        return cls(name, role, pipeline, steps, guidance, record)

    def takes(self, argument: str) -> bool:
        """Whether a call takes this argument."""
        return argument in inspect.signature(type(self.pipeline).__call__).parameters

    @property
    def makes(self) -> str:
        """What comes of a call: "pictures", "sounds" or "clips"."""
        if self.takes("actions"):
            return "clips"
        return "sounds" if self.takes("audio_end_in_s") else "pictures"

    def arguments(self, asked: Asked) -> dict[str, Any]:
        """The arguments of the pipeline's call. ValueError for an empty prompt where one is needed,
        labels there are none of, and too many pictures."""
        from genkit.modalities import call_arguments
        from genkit.rng import sample_generators

        prompt = asked.prompt.strip()
        if not prompt and not self.takes("class_labels"):
            raise ValueError(f"type what is to be {MADE[self.makes]}")
        wanted = dict(call_arguments(self.pipeline, prompt or None))
        count = asked.n * len(next(iter(wanted.values())))
        if not 1 <= count <= MOST:
            raise ValueError(f"that would be {count} pictures; ask for 1 to {MOST}")
        if asked.n > 1 and not self.takes("num_images_per_prompt"):
            raise ValueError(f"{self.name} makes one picture at a time; ask for one")
        optional = {
            "num_inference_steps": self.steps if asked.steps is None else asked.steps,
            "guidance_scale": self.guidance if asked.guidance is None else asked.guidance,
            "negative_prompt": [asked.negative] if asked.negative.strip() else None,
            "num_images_per_prompt": asked.n,
            "generator": sample_generators(asked.seed, count),
        }
        known = {**asked.more, **optional}
        given = {key: value for key, value in known.items() if value is not None}
        return wanted | {key: value for key, value in given.items() if self.takes(key)}

    @property
    def weights(self) -> int:
        """The number of weights of all its networks."""
        from torch import nn

        networks = [
            each for each in self.pipeline.components.values() if isinstance(each, nn.Module)
        ]
        return sum(weight.numel() for each in networks for weight in each.parameters())

    @property
    def place(self) -> str:
        """Where it computes: "cpu", or the GPU's name."""
        import torch

        device = torch.device(self.pipeline.device)
        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@dataclass(frozen=True)
class Pair:
    """A student and, where it has one, its teacher. missing: why there is none, else ""."""

    student: Lane
    teacher: Lane | None = None
    missing: str = ""

    @classmethod
    def open(cls, student: str, teacher: str | None = None) -> Pair:
        """A student with the teacher named, or else with the one its record names.

        ValueError for a student, or a teacher asked for by name, that cannot be opened. A recorded
        teacher that cannot be is missing, which is said.
        """
        pupil = Lane.open(student, "student")
        if teacher is not None:
            return cls(pupil, Lane.open(teacher, "teacher"))
        recorded = pupil.record.get("teacher")
        if not recorded:
            return cls(pupil, missing=f"{student} names no teacher, so it draws alone")
        try:
            return cls(pupil, Lane.open(str(recorded), "teacher"))
        except ValueError as error:
            why = f"the teacher that {student} names, {recorded}, cannot be opened ({error})"
            return cls(pupil, missing=f"{why}, so it draws alone")

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The teacher, where there is one, and the student."""
        return (self.student,) if self.teacher is None else (self.teacher, self.student)

    @property
    def led(self) -> Lane:
        """The lane that steps, guidance and what is to be avoided are for: the other one draws as
        it was trained."""
        return self.lanes[0]

    @property
    def light(self) -> bool:
        """Whether a race takes moments, so that one may start unasked."""
        return all(lane.place != "cpu" or lane.weights < LIGHT for lane in self.lanes)
