"""Songs by rule, from seeds: chords, bass, melody and drums over a plan, as notes.

What is told of a song is its plan (tempo, chords, sections), key, lead instrument and a few tags;
melody, voicing, rhythm of the chords, loudness, timing and register are drawn and told nowhere, so
that one condition has many songs. Held-out combinations of key, tempo and instrument are told by a
hash: a twentieth each is of validation and of test.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from genkit.audio.midi import DRUMS, Note
from genkit.harmony import INTRO, KEYS, OUTRO, Plan, notes_of, planned, scale_of

SPLITS = ("train", "validation", "test")
SLOW, FAST = 70, 160  # bpm
# {name: General MIDI program}; lead instruments, and what plays the chords.
INSTRUMENTS = {
    "piano": 0, "vibraphone": 11, "organ": 16, "guitar": 24, "violin": 40, "trumpet": 56,
    "saxophone": 66, "flute": 73,
}  # fmt: skip
CHORDING = {"piano": 0, "rhodes": 4, "guitar": 25, "strings": 48}
BASS = 33
LEAD, CHORD, LOW = 0, 1, 2  # channels
KICK, SNARE, HAT, RIDE, STICK, CLAP = 36, 38, 42, 51, 37, 39
# Sixteenths of a bar at which each drum sounds.
STYLES: dict[str, dict[int, tuple[int, ...]]] = {
    "rock": {KICK: (0, 8, 10), SNARE: (4, 12), HAT: tuple(range(0, 16, 2))},
    "disco": {KICK: (0, 4, 8, 12), CLAP: (4, 12), HAT: (2, 6, 10, 14)},
    "bossa": {KICK: (0, 6, 8, 14), STICK: (0, 3, 6, 10, 13), HAT: tuple(range(0, 16, 2))},
    "swing": {KICK: (0, 8), SNARE: (4, 12), RIDE: (0, 4, 7, 8, 12, 15)},
    "no": {},
}


@dataclass(frozen=True)
class Song:
    """A song: its number in KEYS, its plan, the name of its lead instrument, tags, and its notes;
    programs of its channels; how much reverb it is given, 0..1."""

    key: int
    plan: Plan
    instrument: str
    text: str
    notes: tuple[Note, ...]
    programs: dict[int, int]
    reverb: float


def split_of(key: int, bpm: float, instrument: str) -> str:
    """The split of a combination of key, tempo (to ten beats) and instrument."""
    told = f"{KEYS[key]} {int(bpm) // 10} {instrument}".encode()
    place = hashlib.sha256(told).digest()[0] % 20
    return {0: "validation", 1: "test"}.get(place, "train")


def compose(split: str, number: int, seconds: float) -> Song:
    """Song `number` of a split, at most `seconds` long but for what fades."""
    rng = np.random.RandomState([SPLITS.index(split), number])
    names = list(INSTRUMENTS)
    while True:
        key, bpm = int(rng.randint(24)), int(rng.randint(SLOW, FAST + 1))
        lead = names[rng.randint(len(names))]
        if split_of(key, bpm, lead) == split:
            break
    chording = list(CHORDING)[rng.randint(len(CHORDING))]
    style = list(STYLES)[rng.randint(len(STYLES))]
    plan = planned(key, float(bpm), seconds, int(rng.randint(2**31)))
    notes = [
        *_chords(plan, rng, chording),
        *_bass(plan, rng),
        *_melody(plan, key, rng),
        *_drums(plan, STYLES[style], rng),
    ]
    loose = rng.uniform(0.002, 0.012)  # seconds by which people are early or late
    human = tuple(
        Note(max(0.0, n.start + loose * rng.randn()), n.seconds, n.pitch, n.loudness, n.channel)
        for n in notes
    )
    text = f"{lead} melody {chording} chords {style} drums"
    programs = {LEAD: INSTRUMENTS[lead], CHORD: CHORDING[chording], LOW: BASS}
    return Song(key, plan, lead, text, human, programs, float(rng.rand()))


def _loudness(rng: np.random.RandomState, middle: float) -> int:
    return int(np.clip(middle + 7 * rng.randn(), 30, 120))


def _voicing(chord: int, rng: np.random.RandomState, low: int) -> list[int]:
    """A chord's notes, each the first of its kind above a bottom that varies."""
    bottom = low + int(rng.randint(0, 8))
    return sorted(bottom + (note - bottom) % 12 for note in notes_of(chord))


# Sixteenths at which a bar's chord is struck, and for how many each sounds.
_RHYTHMS = (((0, 16),), ((0, 8), (8, 8)), ((0, 4), (4, 4), (8, 4), (12, 4)))
_PLUCKED = (((0, 6), (6, 6), (12, 4)), tuple((i, 2) for i in range(0, 16, 2)))


def _chords(plan: Plan, rng: np.random.RandomState, chording: str) -> list[Note]:
    known = _RHYTHMS if chording == "strings" else (*_RHYTHMS[1:], *_PLUCKED)
    rhythms = [known[rng.randint(len(known))] for _ in range(4)]
    step, middle, low = plan.bar_in_s / 16, rng.uniform(58, 76), int(rng.randint(48, 56))
    found = []
    for bar, (chord, section) in enumerate(zip(plan.chords, plan.sections, strict=True)):
        voicing = _voicing(chord, rng, low)
        rhythm = ((0, 16),) if bar == len(plan.chords) - 1 else rhythms[section]
        for place, length in rhythm:
            start = bar * plan.bar_in_s + place * step
            strength = middle + 6 * (section == 2) + 4 * (place == 0)
            found += [
                Note(start, 0.95 * length * step, pitch, _loudness(rng, strength), CHORD)
                for pitch in voicing
            ]
    return found


def _bass(plan: Plan, rng: np.random.RandomState) -> list[Note]:
    patterns = (((0, 16),), ((0, 8), (8, 8)), ((0, 6), (6, 2), (8, 8)), ((0, 4), (8, 4), (12, 4)))
    chosen = [patterns[rng.randint(len(patterns))] for _ in range(4)]
    step, middle = plan.bar_in_s / 16, rng.uniform(72, 92)
    found = []
    for bar, (chord, section) in enumerate(zip(plan.chords, plan.sections, strict=True)):
        root = 36 + (notes_of(chord)[0] - 4) % 12 + 4 - 12 * (rng.rand() < 0.1)
        pattern = ((0, 16),) if bar == len(plan.chords) - 1 else chosen[section]
        for place, length in pattern:
            pitch = root if place == 0 or rng.rand() < 0.7 else root + 7
            start = bar * plan.bar_in_s + place * step
            found.append(Note(start, 0.9 * length * step, int(pitch), _loudness(rng, middle), LOW))
    return found


def _melody(plan: Plan, key: int, rng: np.random.RandomState) -> list[Note]:
    """A walk on the scale that meets a note of the chord where a note begins on a strong beat."""
    scale = [p for p in range(55, 96) if p % 12 in scale_of(key)]
    step, middle = plan.bar_in_s / 16, rng.uniform(78, 98)
    lengths = (1, 2, 4, 8) if rng.rand() < 0.3 else (2, 4, 6, 8)
    weights = np.array([0.15, 0.4, 0.3, 0.15])
    place, found = int(rng.randint(len(scale) // 3, len(scale) // 3 + 10)), []
    for bar, (chord, section) in enumerate(zip(plan.chords, plan.sections, strict=True)):
        if section == INTRO:
            continue
        at = 0
        while at < 16:
            length = min(16 if section == OUTRO else int(rng.choice(lengths, p=weights)), 16 - at)
            if rng.rand() > 0.12 or section == OUTRO:
                place = int(np.clip(place + rng.randint(-2, 3), 3, len(scale) - 4))
                if at % 8 == 0:
                    tones = [i for i, p in enumerate(scale) if p % 12 in notes_of(chord)]
                    place = min(tones, key=lambda i: abs(i - place))
                start = bar * plan.bar_in_s + at * step
                strength = middle + 6 * (section == 2)
                found.append(
                    Note(start, 0.9 * length * step, scale[place], _loudness(rng, strength), LEAD)
                )
            at += length
    return found


def _drums(plan: Plan, style: dict[int, tuple[int, ...]], rng: np.random.RandomState) -> list[Note]:
    step, middle = plan.bar_in_s / 16, rng.uniform(70, 95)
    found = []
    for bar, section in enumerate(plan.sections):
        if bar == len(plan.sections) - 1:
            kept: dict[int, tuple[int, ...]] = {KICK: (0,)} if style else {}
        else:
            kept = {k: v for k, v in style.items() if section != INTRO or k in (HAT, RIDE)}
        for drum, places in kept.items():
            for place in places:
                if rng.rand() < 0.04:
                    continue
                start = bar * plan.bar_in_s + place * step
                strength = middle + 8 * (place % 8 == 0)
                found.append(Note(start, 0.1, drum, _loudness(rng, strength), DRUMS))
    return found
