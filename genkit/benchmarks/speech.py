"""How fast a text is spoken: real-time factor, its parts, the first sound of a stream, its teacher.

Times are of whole calls, from the text to the samples, on one core and on two, medians of several.
The parts of a call are told by the networks themselves, and text apart from them; what is left over
(the sampler's own work, windows, copies) is "rest". A stream is timed to its first chunk twice:
warm, and in a process that has just opened the pipeline and pays for what is loaded on first use.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from genkit import hub
from genkit.benchmarks.record import write_record
from genkit.benchmarks.single_words import single_words
from genkit.benchmarks.single_words import told as told_words
from genkit.rng import generator, sample_generators

TEXT = (
    "The quick brown fox finds an old clock beside the lake. Perhaps my little sister knows where "
    "the tired king hides his bread, for nobody saw him in the morning. It rains."
)
PARTS = {"text_encoder": "durations", "network": "decoder", "vocoder": "vocoder"}
ASKED = (1.0, 60.0)  # seconds whose length is looked at
SINGLES = (TEXT, "Go.", "Where is the small boat?")
COLD = """
import sys, time
import torch
torch.set_num_threads(1)
from genkit import hub
begin = time.perf_counter()
pipeline = hub.Pipeline.from_pretrained(sys.argv[1])
opened = time.perf_counter()
next(pipeline.stream(sys.argv[2], generator=torch.Generator().manual_seed(0)))
first = time.perf_counter()
next(pipeline.stream(sys.argv[2], generator=torch.Generator().manual_seed(0)))
print(opened - begin, first - opened, time.perf_counter() - first)
"""


@dataclass
class Settings:
    pipeline: str = "speech-onestep"
    """A shipped name, a folder, or a hub id; it may stand first, without the flag."""
    teacher: str | None = None
    """Its teacher; by default the one its record names, none if it names none."""
    teacher_steps: int = 50
    """Evaluations of the teacher's decoder."""
    text: str = TEXT
    """What is said."""
    speaker: str | None = None
    """By which voice; by default the first."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads."""
    rounds: int = 7
    """Calls of each, of which the median counts."""
    seed: int = 0
    """Seed of the noise."""
    json: str | None = None
    """A file for the figures."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.teacher_steps < 1 or min(self.threads, default=0) < 1:
            raise ValueError("rounds, teacher_steps and threads are numbers from 1 on")


@contextmanager
def clocked(pipeline: Any) -> Iterator[dict[str, float]]:
    """{part: seconds that its network has run so far}, counted while this is open."""
    spent, begun, hooks = dict.fromkeys(PARTS.values(), 0.0), {}, []
    for name, part in PARTS.items():
        network = pipeline.components.get(name)
        if network is None:
            continue

        def before(*_: Any, part: str = part) -> None:
            begun[part] = time.perf_counter()

        def after(*_: Any, part: str = part) -> None:
            spent[part] += time.perf_counter() - begun[part]

        hooks += [network.register_forward_pre_hook(before), network.register_forward_hook(after)]
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Run with so many threads of torch."""
    import torch

    known = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(known)


def median_of(call: Callable[[], Any], rounds: int) -> float:
    """The median seconds of `rounds` calls after one that does not count."""
    call()
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def spoken(pipeline: Any, settings: Settings, steps: int | None) -> dict[str, float]:
    """Whole calls: seconds of sound and of making it, the real-time factor, milliseconds of the
    parts, one evaluation of the decoder among them."""

    def call() -> Any:
        return pipeline(
            settings.text,
            settings.speaker,
            num_inference_steps=steps,
            generator=generator(settings.seed, "speech"),
        )

    made = call()
    seconds = int(made.lengths[0]) / made.sample_rate
    text = median_of(lambda: pipeline.symbols(settings.text), settings.rounds)
    rows, whole = [], []
    for _ in range(settings.rounds):
        with clocked(pipeline) as parts:
            begin = time.perf_counter()
            call()
            whole.append(time.perf_counter() - begin)
        rows.append(dict(parts))
    told = {part: statistics.median(row[part] for row in rows) for part in rows[0]}
    total = statistics.median(whole)
    told = {"text": text, **told, "rest": max(0.0, total - text - sum(told.values()))}
    evaluations = pipeline.num_timesteps
    return {
        "steps": evaluations,
        "sound_s": seconds,
        "total_s": total,
        "real_time_factor": total / seconds,
        **{f"{part}_ms": 1000 * value for part, value in told.items()},
        "evaluation_ms": 1000 * told["decoder"] / evaluations,
    }


def first_chunk(pipeline: Any, settings: Settings) -> float:
    """Median seconds until a stream of the text gives its first chunk."""

    def call() -> None:
        draws = generator(settings.seed, "speech")
        next(pipeline.stream(settings.text, settings.speaker, generator=draws))

    return median_of(call, settings.rounds)


def cold(name: str, text: str) -> dict[str, float]:
    """Milliseconds, in a fresh process of one thread, to open the pipeline, and to the first chunk
    of its first and of its second stream."""
    command = [sys.executable, "-c", COLD, name, text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"a fresh process could not speak: {last}")
    opened, first, second = (1000 * float(each) for each in done.stdout.split()[-3:])
    return {"open_ms": opened, "first_chunk_ms": first, "second_stream_ms": second}


def lengths(pipeline: Any) -> dict[str, float]:
    """Frames by which a sound asked to last so many seconds is longer or shorter."""
    from genkit.audio.spectra import SPEECH

    found = {}
    for seconds in ASKED:
        made = pipeline(SINGLES[-1], audio_end_in_s=seconds, generator=generator(0, "speech"))
        off = abs(int(made.lengths[0]) - seconds * made.sample_rate) / SPEECH.hop
        found[f"{seconds:g} s"] = off
    return found


def batch_beside_singles(pipeline: Any) -> float:
    """The largest difference of mels made in one batch to the same made alone."""
    alone = list(zip(SINGLES, sample_generators(0, len(SINGLES)), strict=True))
    whole = pipeline(
        list(SINGLES), generator=sample_generators(0, len(SINGLES)), output_type="latent"
    )
    worst = 0.0
    for mel, n, (text, draws) in zip(whole.audios, whole.lengths, alone, strict=True):
        one = pipeline(text, generator=[draws], output_type="latent").audios[0]
        worst = max(worst, float((one - mel[: int(n)]).abs().max()))
    return worst


def measure(settings: Settings) -> dict[str, Any]:
    """The figures: "threads" {number: "student", "first_chunk_ms", and with a teacher "teacher",
    "times_faster"}, "cold", "frames_off", "batch_beside_singles", "single_words". ValueError
    for a pipeline that speaks no text."""
    from genkit.modalities import speaks

    student = hub.Pipeline.from_pretrained(settings.pipeline)
    if not speaks(student):
        raise ValueError(f"{settings.pipeline} is no pipeline of speech; give one that says a text")
    student.set_progress_bar_config(disable=True)
    named = settings.teacher or hub.trained(student).get("teacher")
    teacher = None if named is None else hub.Pipeline.from_pretrained(named)
    found: dict[str, Any] = {"threads": {}}
    for count in settings.threads:
        with on_threads(count):
            row: dict[str, Any] = {"student": spoken(student, settings, None)}
            row["first_chunk_ms"] = 1000 * first_chunk(student, settings)
            if teacher is not None:
                teacher.set_progress_bar_config(disable=True)
                row["teacher"] = {"name": named} | spoken(teacher, settings, settings.teacher_steps)
                both = (row["teacher"], row["student"])
                row["times_faster"] = {
                    "decoder": both[0]["decoder_ms"] / max(both[1]["decoder_ms"], 1e-9),
                    "whole": both[0]["total_s"] / both[1]["total_s"],
                }
            found["threads"][str(count)] = row
    return found | {
        "cold": cold(settings.pipeline, settings.text),
        "frames_off": lengths(student),
        "batch_beside_singles": batch_beside_singles(student),
        "single_words": single_words(student),
    }


def told(found: dict[str, Any]) -> list[str]:
    """The figures for a person, a line each."""
    lines = []
    for count, row in found["threads"].items():
        for name in ("student", "teacher"):
            if (each := row.get(name)) is None:
                continue
            parts = ", ".join(
                f"{part} {each[f'{part}_ms']:.1f}"
                for part in ("text", "durations", "decoder", "vocoder", "rest")
            )
            lines.append(
                f"{count} thread{'s' * (count != '1')}, {name}, {each['steps']} steps: "
                f"{each['sound_s']:.2f} s of sound in {each['total_s']:.3f} s, real-time factor "
                f"{each['real_time_factor']:.4f} (ms: {parts}; an evaluation "
                f"{each['evaluation_ms']:.1f})"
            )
        lines.append(f"  first chunk of a stream after {row['first_chunk_ms']:.0f} ms, warm")
        if "times_faster" in row:
            faster = row["times_faster"]
            lines.append(
                f"  {faster['decoder']:.1f} times faster than the teacher in the decoder, "
                f"{faster['whole']:.1f} times as a whole"
            )
    lines.append(
        "in a fresh process of one thread: {open_ms:.0f} ms to open, {first_chunk_ms:.0f} ms to the"
        " first chunk, {second_stream_ms:.0f} ms the second time".format(**found["cold"])
    )
    off = ", ".join(f"{name}: {value:.3f}" for name, value in found["frames_off"].items())
    lines.append(f"frames too long or short, asked for {off}")
    lines.append(f"a batch beside its singles: {found['batch_beside_singles']:.2g}")
    return lines + told_words(found["single_words"] or {})


def main(settings: Settings) -> None:
    """Measure, print, and write where asked."""
    found = measure(settings)
    print(f"{settings.pipeline}, {os.cpu_count()} cores")
    print("\n".join(told(found)))
    if settings.json is not None:
        write_record(settings.json, settings, **found)
