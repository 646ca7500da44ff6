"""How fast a world is played: frames per second of a student, sustained, and of its teacher.

A frame is timed as a person gets it: the evaluations, the picture, and the write of the frame into
the cache; nothing is drawn ahead. Reported are the median and the 95th percentile of the frames'
times, the parts of a frame, and how the long clip that comes of it holds (drift).
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

from genkit import hub
from genkit.benchmarks.record import write_record

LASTING = 1000  # frames of the clip whose endurance is told
WARM = 20  # frames before the clock starts


@dataclass
class Settings:
    pipeline: str = "world-onestep"
    """A shipped name, a folder, or a hub id; it may stand first, without the flag."""
    teacher: str | None = None
    """Its teacher; by default the one its record names, none if it names none."""
    teacher_steps: int | None = None
    """Evaluations of the teacher a frame; by default its trained number."""
    seconds: float = 60.0
    """How long the student plays."""
    teacher_frames: int = 20
    """Frames the teacher makes."""
    seed: int = 0
    """Seed of noise and actions."""
    json: str | None = None
    """A file for the figures."""

    def __post_init__(self) -> None:
        if not self.seconds > 0 or self.teacher_frames < 2:
            raise ValueError("seconds must be more than 0 and teacher_frames at least 2")


def actions_of(seed: int, frames: int, known: int) -> list[int]:
    """Random actions that are mostly kept, as those of the data are."""
    import torch

    draws = torch.rand(frames, 2, generator=torch.Generator().manual_seed(seed)).tolist()
    actions = [0]
    for kept, fresh in draws:
        actions.append(actions[-1] if kept < 0.7 else int(fresh * known))
    return actions[1:]


def times_of(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile of frame times, and what frames per second they are."""
    ordered = sorted(seconds)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    median = statistics.median(ordered)
    return {
        "frames": float(len(ordered)),
        "median_ms": 1000 * median,
        "p95_ms": 1000 * late,
        "fps_median": 1 / median,
        "fps_p95": 1 / late,
    }


def play(
    pipeline: Any, steps: int | None, seed: int, seconds: float = 0.0, frames: int = 0
) -> tuple[list[float], list[Any], list[int]]:
    """(seconds of each frame, the first LASTING frames, their actions) of so many seconds or
    frames."""
    known = int(pipeline.network.config["num_actions"])
    actions = actions_of(seed, 200_000, known)
    pipeline.reset(seed)
    for action in actions[-WARM:] if seconds else actions[-2:]:
        pipeline.step(action, steps)
    pipeline.reset(seed)
    spent, kept, begin = [], [], time.perf_counter()
    for number, action in enumerate(actions):
        if number >= frames if frames else time.perf_counter() - begin >= seconds:
            break
        tick = time.perf_counter()
        frame = pipeline.step(action, steps)
        spent.append(time.perf_counter() - tick)
        if number < LASTING:
            kept.append(frame)
    return spent, kept, actions[: len(kept)]


def parts_of(pipeline: Any, rounds: int = 30) -> dict[str, float]:
    """Median milliseconds of one evaluation and of one write behind a full cache."""
    import torch

    denoiser, config = pipeline.denoiser, pipeline.network.config
    clip, size = denoiser.rollout(1), config["sample_size"]
    frame = torch.zeros(1, 1, config["in_channels"], size, size)
    told, level = {"action": torch.zeros(1, 1, dtype=torch.int64)}, torch.full((1, 1), 500.0)
    evaluations, writes = [], []
    for number in range(rounds + config["context"]):
        begin = time.perf_counter()
        with torch.no_grad():
            denoiser.raw(frame, level, clip.seen(told))
        between = time.perf_counter()
        clip.write(frame, frame, told)
        if number >= config["context"]:
            evaluations.append(between - begin)
            writes.append(time.perf_counter() - between)
    return {
        "evaluation_ms": 1000 * statistics.median(evaluations),
        "write_ms": 1000 * statistics.median(writes),
    }


def measure(settings: Settings) -> dict[str, Any]:
    """The figures: "student", "parts", "lasting", and where there is a teacher "teacher",
    "times_faster". ValueError for a pipeline that follows no actions."""
    from genkit.modalities import takes_actions

    student = hub.Pipeline.from_pretrained(settings.pipeline)
    if not takes_actions(student):
        raise ValueError(f"{settings.pipeline} follows no actions; there is nothing to play")
    facts = hub.trained(student)
    spent, frames, actions = play(student, None, settings.seed, settings.seconds)
    found: dict[str, Any] = {"student": {"steps": facts.get("steps")} | times_of(spent)}
    found |= {"parts": parts_of(student), "lasting": lasting(frames, actions, facts.get("data"))}
    named = settings.teacher or facts.get("teacher")
    if named is not None:
        teacher = hub.Pipeline.from_pretrained(named)
        steps = settings.teacher_steps or hub.trained(teacher).get("steps", 50)
        theirs, *_ = play(teacher, steps, settings.seed, frames=settings.teacher_frames)
        found["teacher"] = {"name": named, "steps": steps} | times_of(theirs)
        found["times_faster"] = found["teacher"]["median_ms"] / found["student"]["median_ms"]
    return found


def lasting(frames: list[Any], actions: list[int], data: str | None) -> dict[str, float]:
    """How the clip held, against real frames of its data set; nothing for a clip under 100 frames
    or of unknown data."""
    import numpy as np
    import torch

    from genkit.data import load
    from genkit.metrics.clips import endurance

    if len(frames) < 100 or data is None:
        return {}
    pixels = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames]))
    clip = pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return endurance(clip, actions, load(data, "test").x_0[:50].flatten(0, 1))


def main(settings: Settings) -> None:
    """Measure, print, and write where asked."""
    import torch

    found = measure(settings)
    threads = torch.get_num_threads()
    print(f"{settings.pipeline}, {threads} threads of {os.cpu_count()} cores")
    for name in ("student", "teacher"):
        if (row := found.get(name)) is None:
            continue
        print(
            f"{name}, {row['steps']} steps: {row['fps_median']:.1f} frames per second at the median"
            f" ({row['median_ms']:.1f} ms), {row['fps_p95']:.1f} at the 95th percentile "
            f"({row['p95_ms']:.1f} ms), {row['frames']:.0f} frames"
        )
    print("parts: " + ", ".join(f"{name} {value:.2f}" for name, value in found["parts"].items()))
    if "times_faster" in found:
        print(f"{found['times_faster']:.1f} times faster than the teacher")
    for name, value in found["lasting"].items():
        print(f"{name}: {value:.4g}")
    if settings.json is not None:
        write_record(settings.json, settings, threads=threads, **found)
