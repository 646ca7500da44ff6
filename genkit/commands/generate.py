"""Make samples with a pipeline: genkit generate PIPELINE "PROMPT" [options].

For pipelines of classes the prompt is a label such as "3", or several, "3,5"; without a prompt they
make one sample of every class. For worlds it is a string of actions, a letter a frame: "rrruu..ll".
Pipelines of speech say the prompt, and take a speaker and a speed; those of music play its tags,
and take a tempo, a key, an instrument and a length.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from genkit.commands.flags import parse

FLAGS = {"audio_end_in_s": "seconds"}  # of arguments that are called otherwise here


@dataclass
class Generate:
    pipeline: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PIPELINE")]
    """A shipped name (genkit list pipelines), a folder, or a hub id."""
    prompt: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")] = None
    """What to make; for pipelines of classes a label such as 3, or 3,5, for worlds actions."""
    steps: int | None = None
    """Evaluations of the network; by default the trained number."""
    guidance: float | None = None
    """Guidance scale, 1 is off; by default the trained one."""
    seed: int = 0
    """Seed of the noise."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1
    """Samples per prompt or label."""
    style: tuple[float, ...] = ()
    """The style of a merged pipeline: its number, or between commas a weight for each."""
    speaker: str | None = None
    """Of speech: the voice's name; by default the first."""
    speed: float | None = None
    """Of speech: 2 is twice as fast."""
    bpm: float | None = None
    """Of music: beats per minute."""
    key: str | None = None
    """Of music: such as "A minor"."""
    instrument: str | None = None
    """Of music: the lead; by default the first that the prompt names."""
    chords: tuple[str, ...] = ()
    """Of music: a chord for each bar, between commas, such as C,Am,F,G, again and again."""
    seconds: float | None = None
    """Of speech and music: the length, exact to a sample; by default as long as it takes."""
    out: str = "samples"
    """The folder they are written to; files there are never written over."""


def run(argv: list[str]) -> int:
    """Open the pipeline, run it, write the files."""
    asked = parse(Generate, argv, "generate")
    if asked.n < 1:
        raise ValueError(f"n is {asked.n}; give at least 1")
    if asked.steps is not None and asked.steps < 1:
        raise ValueError(f"steps is {asked.steps}; give at least 1")
    from genkit.hub import Pipeline, hide_loading_bars
    from genkit.modalities import call_arguments, many_argument, saved, takes_actions
    from genkit.modalities.film import NEEDED, has_encoder
    from genkit.rng import sample_generators

    hide_loading_bars()
    pipeline = Pipeline.from_pretrained(asked.pipeline)
    arguments = call_arguments(pipeline, asked.prompt)
    count = asked.n * len(next(iter(arguments.values())))
    optional: dict[str, Any] = {
        "num_inference_steps": asked.steps,
        "guidance_scale": asked.guidance,
        "speaker": asked.speaker,
        "speed": asked.speed,
        "bpm": asked.bpm,
        "key": asked.key,
        "instrument": asked.instrument,
        "chords": list(asked.chords) or None,
        "audio_end_in_s": asked.seconds,
        "style": chosen(asked.style) if asked.style else None,
    }
    given = {name: value for name, value in optional.items() if value is not None}
    _check_taken(pipeline, given)
    made = pipeline(
        **arguments,
        **given,
        **{many_argument(pipeline): asked.n},
        generator=sample_generators(asked.seed, count),
    )
    if takes_actions(pipeline) and not has_encoder():
        print(f"genkit: strips of frames are written; {NEEDED}", file=sys.stderr)
    for file in saved(made, Path(asked.out), asked.seed):
        print(file)
    return 0


def _check_taken(pipeline: Any, given: dict[str, Any]) -> None:
    """ValueError for what was asked of a pipeline that cannot be asked for it."""
    taken = inspect.signature(type(pipeline).__call__).parameters
    strange = [name for name in given if name not in taken]
    if strange:
        name = FLAGS.get(strange[0], strange[0].removesuffix("_scale"))
        raise ValueError(f"{type(pipeline).__name__} takes no --{name}; leave it out")


def chosen(style: Sequence[float]) -> int | tuple[float, ...]:
    """A style by its number, or weights."""
    if len(style) > 1:
        return tuple(style)
    if not float(style[0]).is_integer():
        raise ValueError(
            f"style {style[0]:g} is no number of a style; give one, or several weights"
        )
    return int(style[0])
