"""Music of plain tones: songs by rule, played by a few sines and noises, with no package.

For tests and for trying the commands: made from seeds while it is loaded, and no good to listen to.
The songs are those of `genkit.data.songs`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genkit.audio.midi import DRUMS, Note
from genkit.data.base import Samples
from genkit.data.music_samples import HOP, RATE, Piece, gather
from genkit.data.songs import INSTRUMENTS, LOW, Song, compose

NAME = "music-tones"
COUNT = {"train": 48, "validation": 8, "test": 12}
LENGTH = 256  # frames of a song: 11.9 s


def _tone(note: Note, overtones: int, bright: float) -> np.ndarray:
    """A plucked tone: overtones that fall with their number and with time."""
    n = int((note.seconds + 0.15) * RATE)
    time = np.arange(n) / RATE
    hertz, found = 440 * 2 ** ((note.pitch - 69) / 12), np.zeros(n)
    for k in range(1, overtones + 1):
        if k * hertz < 0.45 * RATE:
            found += bright ** (k - 1) * np.sin(2 * np.pi * k * hertz * time)
    fall = np.exp(-time * 2) * np.minimum(1, (n - np.arange(n)) / (0.1 * RATE))
    return found * fall * np.minimum(1, time / 0.005) * (note.loudness / 127) ** 2


def _hit(note: Note, rng: np.random.RandomState) -> np.ndarray:
    """A drum: a falling sine for a bass drum, bright noise for any other."""
    time = np.arange(int(0.12 * RATE)) / RATE
    level = (note.loudness / 127) ** 2
    if note.pitch < 37:
        return (
            level
            * 1.5
            * np.sin(2 * np.pi * (45 * time - 8 * np.exp(-time * 30)))
            * (np.exp(-time * 25))
        )
    noise = np.diff(rng.randn(len(time)), prepend=0.0)
    return level * 0.35 * noise * np.exp(-time * (60 if note.pitch > 40 else 30))


def sound(song: Song, seconds: float, rng: np.random.RandomState) -> Tensor:
    """Samples (n,) of a song, its peak at 0.6."""
    total = np.zeros(int(seconds * RATE) + RATE)
    overtones = {name: 2 + i for i, name in enumerate(INSTRUMENTS)}[song.instrument]
    bright = rng.uniform(0.35, 0.6)
    for note in song.notes:
        if note.channel == DRUMS:
            made = _hit(note, rng)
        else:
            made = _tone(note, 2 if note.channel == LOW else overtones, bright)
        first = int(note.start * RATE)
        if first < len(total):
            made = made[: len(total) - first]
            total[first : first + len(made)] += made
    total = total[: int(seconds * RATE)]
    return torch.from_numpy(0.6 * total / np.abs(total).max()).float()


def _gathered(split: str, n: int) -> Samples:
    seconds, pieces = LENGTH * HOP / RATE, []
    for number in range(n):
        song = compose(split, number, seconds)
        rng = np.random.RandomState([len(split), number])
        audio = sound(song, seconds + 1 / RATE, rng)
        pieces.append(Piece(audio, song.text, song.key, song.instrument, song.plan.bpm, song.plan))
    return gather(pieces, NAME, list(INSTRUMENTS), LENGTH)


def load(split: str = "train", n: int | None = None) -> Samples:
    """The songs of a split, LENGTH frames each."""
    if split not in COUNT:
        raise ValueError(f"{NAME} has no split {split!r}; choose one of {', '.join(COUNT)}")
    found = _gathered(split, n or COUNT[split])
    if split != "train":
        return found
    kept = _gathered("test", COUNT["test"])
    return replace(found, held_out=kept.captions, held_out_cond=kept.cond)
