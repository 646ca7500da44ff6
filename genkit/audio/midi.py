"""Standard MIDI files of notes, written without a package (MIDI 1.0, format 0)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TICKS = 480  # of a quarter
DRUMS = 9  # the channel of drums


@dataclass(frozen=True)
class Note:
    """A note: when it begins and how long it is in seconds, its MIDI pitch, loudness 1..127, and
    the channel that plays it."""

    start: float
    seconds: float
    pitch: int
    loudness: int
    channel: int


def _varying(number: int) -> bytes:
    """A variable-length quantity."""
    found = [number & 0x7F]
    while number := number >> 7:
        found.append(0x80 | number & 0x7F)
    return bytes(reversed(found))


def midi_bytes(notes: Iterable[Note], programs: Mapping[int, int], bpm: float) -> bytes:
    """Notes as a MIDI file with a tempo. programs: {channel: General MIDI instrument, 0..127}."""
    second = TICKS * bpm / 60
    events: list[tuple[int, int, bytes]] = [
        (0, 0, bytes([0xC0 | channel, program])) for channel, program in programs.items()
    ]
    events.append((0, 0, b"\xff\x51\x03" + struct.pack(">I", round(60e6 / bpm))[1:]))
    for note in notes:
        begin = max(0, round(note.start * second))
        end = max(begin + 1, round((note.start + note.seconds) * second))
        events.append((begin, 2, bytes([0x90 | note.channel, note.pitch, note.loudness])))
        events.append((end, 1, bytes([0x80 | note.channel, note.pitch, 0])))
    track, now = b"", 0
    for tick, _, held in sorted(events, key=lambda event: event[:2]):
        track += _varying(tick - now) + held
        now = tick
    track += b"\x00\xff\x2f\x00"
    head = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS)
    return head + struct.pack(">4sI", b"MTrk", len(track)) + track
