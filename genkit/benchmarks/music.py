"""How long a song takes: the parts of a call, memory beyond the weights, real music as a ceiling.

A piece is made at several numbers of steps, and its parts are timed apart: text and plan, the
evaluations of the network, the codec. Memory is the most this process held at any moment above what
it held with the weights loaded. Without a pipeline's name all networks are random and of the size
that is trained by default: times and memory are those of trained ones. With --data, key, tempo and
chord agreement of real music, before and after the codec: what figures of a pipeline can reach.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from typing import Any

from genkit import hub
from genkit.benchmarks.record import write_record

Row = dict[str, Any]


@dataclass
class Settings:
    pipeline: str | None = None
    """A shipped name, a folder, or a hub id; by default random weights."""
    seconds: float = 240.0
    """Length of the song."""
    steps: tuple[int, ...] = (1, 2, 4)
    """Numbers of steps."""
    guidance: float | None = None
    """Guidance scale; by default the trained one."""
    rounds: int = 3
    """Songs of each number of steps, of which the median counts."""
    data: str | None = None
    """A data set of music whose test split is heard, and what the codec leaves of it."""
    n: int = 400
    """Stretches of it that are heard."""
    json: str | None = None
    """A file to write the figures to."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}; give at least 1")
        if not self.steps or min(self.steps) < 1:
            raise ValueError("steps are numbers from 1 on")
        if self.n < 1:
            raise ValueError(f"n is {self.n}; give at least 1")


def random_pipeline() -> Any:
    """A pipeline of the default sizes with random weights."""
    import torch

    from genkit.data.songs import INSTRUMENTS
    from genkit.networks.music import MusicTransformer
    from genkit.networks.music_codec import MusicCodec
    from genkit.networks.text import text_encoder, word_tokenizer
    from genkit.paths import RectifiedFlow
    from genkit.sampling import Sampler
    from genkit_pipelines.music.text_to_music import MusicPipeline

    torch.manual_seed(0)
    tokenizer = word_tokenizer(["flute melody piano chords rock drums"])
    encoder = text_encoder(len(tokenizer)).eval()
    network = MusicTransformer(instruments=tuple(INSTRUMENTS)).eval()
    codec = MusicCodec().eval()
    scheduler = hub.make_scheduler(Sampler(4), RectifiedFlow(), "velocity", 1000.0)
    return MusicPipeline(tokenizer, encoder, network, scheduler, codec)


def _peak() -> float:
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def weights(pipeline: Any) -> dict[str, float]:
    """Parameters of the networks, and the megabytes they take in bfloat16."""
    from torch import nn

    parts = {k: v for k, v in pipeline.components.items() if isinstance(v, nn.Module)}
    counts = {name: float(sum(p.numel() for p in m.parameters())) for name, m in parts.items()}
    return counts | {"bf16_mb": 2 * sum(counts.values()) / 1e6}


def song(pipeline: Any, seconds: float, steps: int, guidance: float | None) -> Row:
    """Wall and processor seconds of one song: text and plan, network, codec, all."""
    import torch

    marks: list[tuple[float, float]] = []

    def mark(*_: Any) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    handles = [
        pipeline.network.register_forward_pre_hook(mark),
        pipeline.network.register_forward_hook(mark),
    ]
    mark()
    pipeline(
        "flute melody piano chords rock drums",
        audio_end_in_s=seconds,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(0),
    )
    mark()
    for handle in handles:
        handle.remove()
    places = {"prepare": (0, 1), "network": (1, -2), "codec": (-2, -1), "total": (0, -1)}
    return {
        f"{name}{kind}": marks[b][i] - marks[a][i]
        for name, (a, b) in places.items()
        for i, kind in enumerate(("_s", "_cpu_s"))
    }


def ceiling(pipeline: Any, data: str, n: int) -> dict[str, dict[str, float]]:
    """Agreement of the test split's own sound, and of what the codec makes of it."""
    from genkit.data import load
    from genkit.denoisers.diffusers import as_denoiser
    from genkit.modalities import modality

    kind = modality(load(data, "test"), as_denoiser(pipeline))
    reference = kind.reference()
    asked = reference.fresh_asked[:n]
    sounds = {"real": reference.real[:n], "through the codec": reference.fresh[:n]}
    found = {
        name: reference.extra(x, reference.net.features(x), asked) for name, x in sounds.items()
    }
    return found | {"n": {"n": float(len(asked))}}


def measure(settings: Settings) -> dict[str, Any]:
    """The figures: "weights", "memory_mb", "rows" of times, and "ceiling" where data is named."""
    import statistics

    named = settings.pipeline
    pipeline = random_pipeline() if named is None else hub.Pipeline.from_pretrained(named)
    if type(pipeline).__name__ != "MusicPipeline":
        raise ValueError(f"{named} makes no music; there is no song to time")
    pipeline.set_progress_bar_config(disable=True)
    loaded, rows = _peak(), []
    for steps in settings.steps:
        songs = [
            song(pipeline, settings.seconds, steps, settings.guidance)
            for _ in range(settings.rounds)
        ]
        median = {name: statistics.median(each[name] for each in songs) for name in songs[0]}
        rows.append({"steps": steps} | median)
    found = {"weights": weights(pipeline), "memory_mb": _peak() - loaded, "rows": rows}
    if settings.data is not None:
        found["ceiling"] = ceiling(pipeline, settings.data, settings.n)
    return found


def main(settings: Settings) -> None:
    """Measure, print, and write where asked."""
    import torch

    found, threads = measure(settings), torch.get_num_threads()
    who = settings.pipeline or "random weights"
    print(f"{who}, {settings.seconds:g} s of music, {threads} threads of {os.cpu_count()} cores")
    print("steps   prepare s   network s   codec s   total s   (processor seconds)")
    for row in found["rows"]:
        wall = f"{row['prepare_s']:9.2f}   {row['network_s']:9.2f}   {row['codec_s']:7.2f}"
        print(f"{row['steps']:5d}   {wall}   {row['total_s']:7.2f}   ({row['total_cpu_s']:.2f})")
    print(f"memory beyond the weights: {found['memory_mb']:.0f} MB")
    print(f"weights in bfloat16: {found['weights']['bf16_mb']:.1f} MB")
    for name, figures in found.get("ceiling", {}).items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    if settings.json is not None:
        write_record(settings.json, settings, threads=threads, **found)
