"""The modality of a data set, and what a typed prompt means to a pipeline.

A kind of data set is recognised by what it is conditioned on; a new kind is one file here and one
row of KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genkit.data.base import Prompts, Samples
from genkit.denoisers.diffusers import Loaded
from genkit.modalities.actions import ActionClips
from genkit.modalities.base import Modality
from genkit.modalities.classes import ClassImages, labels
from genkit.modalities.film import has_encoder, write_clip
from genkit.modalities.music import Music
from genkit.modalities.speech import SpokenTexts
from genkit.modalities.texts import TextImages

__all__ = [
    "ActionClips",
    "ClassImages",
    "Modality",
    "Music",
    "SpokenTexts",
    "TextImages",
    "call_arguments",
    "labels",
    "many_argument",
    "modality",
    "saved",
    "speaks",
    "takes_actions",
    "takes_labels",
]

KINDS: dict[tuple[str, ...], Callable[[Samples], Modality]] = {
    ("label",): ClassImages.of,
    ("caption",): TextImages.of,
    ("action",): ActionClips.of,
    ("caption", "frames", "speaker"): SpokenTexts.of,
    ("bars", "bpm", "caption", "frames", "instrument", "key"): Music.of,
}
# {a teacher's pipeline class: of(data, teacher)} of those that are asked by other than pictures'
# captions.
TEACHERS: dict[str, Callable[[Samples | Prompts, Loaded], Modality]] = {
    "TextToSpeechPipeline": SpokenTexts.of_teacher,
    "MusicPipeline": Music.of_teacher,
}


def modality(data: Samples | Prompts, teacher: Loaded | None = None) -> Modality:
    """The modality of a data set, by the names of its conditions; with a teacher that takes text,
    as that teacher reads it. ValueError for conditions nothing here knows."""
    owner = None if teacher is None else TEACHERS.get(type(teacher.pipeline).__name__)
    if owner is not None:
        assert teacher is not None
        return owner(data, teacher)
    if teacher is not None and teacher.family.encode is not None:
        return TextImages.of_teacher(data, teacher)
    if isinstance(data, Prompts):
        raise ValueError(f"{data.name} holds prompts, and this pipeline takes none")
    names = [*data.cond, "caption"] if data.captions else list(data.cond)
    kind = tuple(sorted(names))
    if kind not in KINDS:
        known = "; ".join(", ".join(each) for each in KINDS)
        raise ValueError(f"{data.name} has the conditions {kind}; known kinds of data: {known}")
    return KINDS[kind](data)


def takes_labels(pipeline: Any) -> bool:
    """Whether a pipeline is asked for classes, rather than by a text."""
    return _takes(pipeline, "class_labels")


def _takes(pipeline: Any, name: str) -> bool:
    import inspect

    return name in inspect.signature(type(pipeline).__call__).parameters


def many_argument(pipeline: Any) -> str:
    """The keyword by which a pipeline is asked for several samples of one prompt."""
    names = ("num_waveforms_per_prompt", "num_images_per_prompt")
    return next(name for name in names if _takes(pipeline, name))


def takes_actions(pipeline: Any) -> bool:
    """Whether a pipeline is asked for clips by an action for each frame."""
    return _takes(pipeline, "actions")


def speaks(pipeline: Any) -> bool:
    """Whether a pipeline is asked for the speech of a text."""
    return _takes(pipeline, "text") and _takes(pipeline, "speaker")


def saved(made: Any, out: Path, seed: int) -> list[Path]:
    """Write what a pipeline returned, sounds as WAV, clips as MP4 (where an encoder is installed)
    and pictures as PNG files, numbered on from those that are there; the files."""
    out.mkdir(parents=True, exist_ok=True)
    if "audios" in made:
        from genkit.audio.files import wav_bytes

        parts = zip(made.audios, made.lengths, strict=True)
        held = [wav_bytes(each[0, : int(n)], made.sample_rate) for each, n in parts]
        return [_numbered(out, seed, ".wav", lambda f, x=x: f.write_bytes(x)) for x in held]
    if "frames" in made:
        ending = ".mp4" if has_encoder() else ".png"
        return [
            _numbered(out, seed, ending, lambda f, x=x: write_clip(x, f.with_suffix("")))
            for x in made.frames
        ]
    return [_numbered(out, seed, ".png", image.save) for image in made.images]


def _numbered(out: Path, seed: int, ending: str, write: Callable[[Path], Any]) -> Path:
    number = 0
    while (file := out / f"seed{seed}-{number:04d}{ending}").exists():
        number += 1
    write(file)
    return file


def call_arguments(pipeline: Any, prompt: str | None) -> dict[str, Sequence[Any]]:
    """What a prompt typed by a person means to a pipeline: its class labels, or its text."""
    if takes_labels(pipeline):
        return {"class_labels": labels(prompt, pipeline.network.config.num_classes)}
    if takes_actions(pipeline):
        from genkit.data.world import read_actions

        return {"actions": [read_actions(prompt or "")]}
    if prompt is None:
        raise ValueError(
            f'{type(pipeline).__name__} needs a prompt: genkit generate PIPELINE "..."'
        )
    return {"text" if _takes(pipeline, "text") else "prompt": [prompt]}
