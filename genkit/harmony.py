"""Keys, chords, bars and sections: what a piece of music is asked to be, told frame by frame.

A `Plan` is a tempo, and for every bar of four beats a chord and a section. Networks are told of it
what any frame of any piece knows (phases of beat, bar and phrase, the chord's notes, the section,
how near the piece begins or ends), never a place counted from the beginning: what is learned on
crops of seconds holds for minutes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

RATE = 22_050 / 1024  # frames a second
BEATS = 4  # of a bar
NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{note} {mode}" for mode in ("major", "minor") for note in NOTES)
CHORDS = (*NOTES, *(f"{note}m" for note in NOTES))
SLOWEST, FASTEST = 40.0, 240.0  # bpm
SECTIONS = ("intro", "A", "B", "outro")
INTRO, OUTRO = 0, 3
_NAME = re.compile(r"\s*([a-gA-G])\s*([#b♯♭]?)\s*(major|minor|maj|min|m|)\s*", re.IGNORECASE)
_DEGREES = {
    "I": 0, "ii": 14, "iii": 16, "IV": 5, "V": 7, "vi": 21,
    "i": 12, "iv": 17, "VI": 8, "VII": 10,
}  # fmt: skip
_LOOPS = {
    # All tell their key: those of minor have its own dominant (Am F C G would be C major's too).
    False: ("I V vi IV", "I vi IV V", "I IV ii V", "I iii IV V", "I IV I V"),
    True: ("i VII VI V", "i iv i V", "i VI iv V", "i iv VI V"),
}
# What a frame is told: sine and cosine of three phases, the section, whether the piece is over,
# the chord's notes, its root, nearness of beginning and end, and that all this is known.
WIDTH = 6 + len(SECTIONS) + 1 + 12 + 12 + 3
NEAR = 1.0  # seconds in which the nearness of beginning or end falls by e


def _number(name: str, what: str, known: str) -> int:
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"{name!r} is no {what}; give one such as {known}")
    letter, sign, mode = found.groups()
    step = {"#": 1, "♯": 1, "b": -1, "♭": -1}.get(sign, 0)
    note = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B").index(letter.upper())
    minor = mode == "m" or mode.lower().startswith("min")
    return (note + step) % 12 + 12 * minor


def key_number(name: str) -> int:
    """The place in KEYS of a key's name: "Bb minor", "f# major", "Am". ValueError for none."""
    return _number(name, "key", '"C major", "F# minor" or "Bb minor"')


def chord_number(name: str) -> int:
    """The place in CHORDS of a chord's name: "C", "F#m". ValueError for other than a triad."""
    return _number(name, "chord", '"C", "Am" or "F#m"; there are major and minor ones')


def check_bpm(bpm: float) -> float:
    """A tempo as a number; ValueError for one that no music has."""
    if not isinstance(bpm, (int, float)) or not SLOWEST <= bpm <= FASTEST:
        raise ValueError(f"bpm is {bpm}; give beats per minute from {SLOWEST:g} to {FASTEST:g}")
    return float(bpm)


def notes_of(chord: int) -> tuple[int, int, int]:
    """The pitch classes of a chord: root, third, fifth."""
    root, minor = chord % 12, chord >= 12
    return root, (root + (3 if minor else 4)) % 12, (root + 7) % 12


def scale_of(key: int) -> tuple[int, ...]:
    """The pitch classes of a key's scale, minor being natural minor."""
    steps = (0, 2, 3, 5, 7, 8, 10) if key >= 12 else (0, 2, 4, 5, 7, 9, 11)
    return tuple((key + step) % 12 for step in steps)


def degree(key: int, name: str) -> int:
    """The chord of a degree in a key, such as "vi"."""
    chord = _DEGREES[name]
    return (chord + key) % 12 + 12 * (chord >= 12)


def loops(key: int) -> tuple[tuple[int, ...], ...]:
    """The progressions of four chords that a key has here."""
    return tuple(tuple(degree(key, d) for d in loop.split()) for loop in _LOOPS[key >= 12])


@dataclass(frozen=True)
class Plan:
    """A piece: beats per minute, and for each bar its chord (of CHORDS) and section (of SECTIONS).
    It begins at 0 s, and after its last bar sounds fade."""

    bpm: float
    chords: tuple[int, ...]
    sections: tuple[int, ...]

    @property
    def bar_in_s(self) -> float:
        return BEATS * 60 / self.bpm

    @property
    def end_in_s(self) -> float:
        """When the last bar ends."""
        return len(self.chords) * self.bar_in_s

    def chord_at(self, seconds: float) -> int | None:
        """The chord of a moment; None where there is no bar."""
        bar = int(seconds // self.bar_in_s)
        return self.chords[bar] if 0 <= bar < len(self.chords) else None

    def told(self, first: int, frames: int) -> Tensor:
        """(frames, WIDTH) of what is known of frames first, first + 1, ...; zeros for a plan
        without bars."""
        found = torch.zeros(frames, WIDTH)
        if not self.chords:
            return found
        seconds = (torch.arange(first, first + frames, dtype=torch.float64) + 0.5) / RATE
        bars = seconds / self.bar_in_s
        for place, phase in enumerate((bars * BEATS, bars, bars / 4)):
            turn = 2 * math.pi * (phase % 1)
            found[:, 2 * place], found[:, 2 * place + 1] = turn.sin(), turn.cos()
        over = bars >= len(self.chords)
        bar = bars.long().clamp(max=len(self.chords) - 1)
        at, rows = 6, torch.arange(frames)
        found[rows, at + torch.tensor(self.sections)[bar]] = 1
        at += len(SECTIONS)
        found[:, at] = over.float()
        notes = torch.tensor([notes_of(chord) for chord in self.chords])[bar]
        for part in notes.T:
            found[rows, at + 1 + part] = 1
        found[rows, at + 13 + notes[:, 0]] = 1
        found[over, at + 1 : at + 25] = 0
        found[:, -3] = (-seconds / NEAR).exp()
        found[:, -2] = (-(self.end_in_s - seconds).abs() / NEAR).exp()
        found[:, -1] = 1
        return found


def form(bars: int) -> tuple[int, ...]:
    """The sections of so many bars: an intro, A and B in turn, an outro of two bars."""
    if bars < 8:
        return (1,) * bars
    each = 4 if bars < 32 else 8
    return (INTRO,) * 2 + tuple(1 + i // each % 2 for i in range(bars - 4)) + (OUTRO,) * 2


def planned(key: int, bpm: float, seconds: float, seed: int) -> Plan:
    """A piece in a key that fits into so many seconds, its progressions chosen by the seed; it ends
    on the dominant and the tonic."""
    bars = max(1, int(seconds * bpm / 60 / BEATS + 1e-9))
    draw, minor = Random(seed), key >= 12
    progressions = draw.sample(loops(key), 2)
    sections = form(bars)
    chords = [progressions[int(s == 2)][max(0, i - 2) % 4] for i, s in enumerate(sections)]
    if OUTRO in sections:
        chords[-2:] = degree(key, "V"), degree(key, "i" if minor else "I")
    return Plan(bpm, tuple(chords), sections)


def following(chords: list[str], bpm: float, seconds: float) -> Plan:
    """A piece whose bars go through the named chords again and again."""
    bars = max(1, int(seconds * bpm / 60 / BEATS + 1e-9))
    numbers = [chord_number(name) for name in chords]
    return Plan(bpm, tuple(numbers[i % len(numbers)] for i in range(bars)), form(bars))
