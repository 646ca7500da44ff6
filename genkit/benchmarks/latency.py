"""How long a picture takes: a student beside its teacher, from the prompt to the finished picture.

Whole calls are timed as a person makes them (text encoding and conversion to PIL included), at
batch 1 and at batch 64, pipelines taking turns, medians and their ratio: a busy machine slows both.
The teacher runs at every number of steps asked for, with its own guidance, so that the fewest steps
that reach the student's quality can be read off beside its figures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from genkit import hub
from genkit.benchmarks.record import write_record
from genkit.rng import sample_generators

Row = dict[str, Any]


@dataclass
class Settings:
    student: str = "emoji-onestep"
    """A shipped name, a folder, or a hub id."""
    teacher: str | None = None
    """Its teacher; by default the one its record names."""
    steps: tuple[int, ...] = (4, 50)
    """Numbers of steps the teacher takes."""
    guidance: float | None = None
    """The teacher's guidance; by default its own."""
    batches: tuple[int, ...] = (1, 64)
    """Numbers of pictures made at once."""
    rounds: int = 7
    """Calls of each, of which the median counts."""
    prompt: str | None = None
    """What is drawn; by default "two cats on a blue background", or the class 3."""
    out: str | None = None
    """A file to write the figures to as JSON."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}; give at least 1")
        if min((*self.batches, *self.steps), default=0) < 1:
            raise ValueError("batches and steps are numbers from 1 on")


def _call(pipeline: Any, prompt: str | None, batch: int, **given: Any) -> Callable[[], None]:
    """One call of a pipeline that makes `batch` PIL pictures."""
    from genkit.modalities import call_arguments, takes_labels

    default = "3" if takes_labels(pipeline) else "two cats on a blue background"
    arguments = call_arguments(pipeline, default if prompt is None else prompt)
    several = {name: list(value) * batch for name, value in arguments.items()}

    def call() -> None:
        pipeline(**several, generator=sample_generators(0, batch), **given)

    return call


def timed(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median wall seconds of each call, made in turns after one untimed round."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(each) for name, each in seconds.items()}


def measure(settings: Settings) -> list[Row]:
    """One row per batch and number of the teacher's steps: seconds of both, and their ratio.

    ValueError where the student names no teacher and none is given.
    """
    student = hub.Pipeline.from_pretrained(settings.student)
    facts = hub.trained(student)
    named = settings.teacher or facts.get("teacher")
    if named is None:
        raise ValueError(f"{settings.student} names no teacher; give --teacher")
    teacher = hub.Pipeline.from_pretrained(named)
    w = settings.guidance or hub.trained(teacher).get("guidance", 1.0)
    for each in (student, teacher):
        each.set_progress_bar_config(disable=True)
    ours = {"num_inference_steps": facts["steps"], "guidance_scale": facts["guidance"]}
    rows = []
    for batch in settings.batches:
        calls = {"student": _call(student, settings.prompt, batch, **ours)}
        for steps in settings.steps:
            theirs = {"num_inference_steps": steps, "guidance_scale": w}
            calls[str(steps)] = _call(teacher, settings.prompt, batch, **theirs)
        seconds = timed(calls, settings.rounds)
        rows += [
            {
                "batch": batch,
                "student": settings.student,
                "student_seconds": seconds["student"],
                "teacher": named,
                "teacher_steps": steps,
                "guidance": w,
                "teacher_seconds": seconds[str(steps)],
                "times_faster": seconds[str(steps)] / seconds["student"],
            }
            for steps in settings.steps
        ]
    return rows


def main(settings: Settings) -> None:
    """Measure, print a table, and write it where asked."""
    import torch

    rows = measure(settings)
    print(f"median of {settings.rounds} calls in turns, {torch.get_num_threads()} threads")
    print("batch   student s   teacher steps, guidance   teacher s   times faster")
    for row in rows:
        told = f"{row['teacher_steps']}, {row['guidance']:g}"
        print(
            f"{row['batch']:5d}   {row['student_seconds']:9.4f}   {told:>23}   "
            f"{row['teacher_seconds']:9.3f}   {row['times_faster']:12.1f}"
        )
    if settings.out is not None:
        write_record(settings.out, settings, threads=torch.get_num_threads(), rows=rows)
