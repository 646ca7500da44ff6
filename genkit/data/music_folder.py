"""A folder of music with captions: sounds, and metadata.jsonl or a text file beside each sound.

A line of metadata.jsonl has file_name and text, and where they are known bpm, key ("A minor"),
instrument (one word), chords and sections (names, one for each bar of four beats, of a piece that
begins with its first sample) and split. Without a split, a twentieth each is of validation and of
test, told by a hash of the file's name. Recordings longer than a sample are cut into several.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genkit.audio.files import SOUNDS, read
from genkit.data.base import Samples
from genkit.data.music_samples import FRAMES, HOP, LEAST, PLAYED, RATE, Piece, gather
from genkit.harmony import SECTIONS, Plan, check_bpm, chord_number, form, key_number

PRESETS = PLAYED
TABLE = "metadata.jsonl"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """One recording of the folder."""

    file: Path
    text: str
    split: str
    known: dict[str, Any]


def holds(folder: Path) -> bool:
    """Whether a folder holds sounds as this file reads them."""
    if not folder.is_dir() or (folder / "metadata.csv").exists():
        return False
    if (folder / TABLE).is_file():
        with (folder / TABLE).open(encoding="utf-8") as lines:
            first = next(lines, "")
        return any(f'{ending}"' in first.lower() for ending in SOUNDS)
    return any(p.suffix.lower() in SOUNDS for p in folder.iterdir())


def entries(folder: Path) -> list[Entry]:
    """The recordings of a folder; ValueError for a table or a caption that is not there."""
    if not (folder / TABLE).is_file():
        return _beside(folder)
    found = []
    for number, line in enumerate((folder / TABLE).read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            name, text = str(row["file_name"]), str(row["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {number} of {folder / TABLE} is no JSON with file_name and text ({error})"
            ) from error
        split = row.get("split") or _split(name)
        if split not in SPLITS:
            raise ValueError(f"line {number} of {folder / TABLE} has the split {split!r}")
        found.append(Entry(folder / name, text, split, row))
    if not found:
        raise ValueError(f"{folder / TABLE} is empty")
    return found


def _beside(folder: Path) -> list[Entry]:
    found = []
    for file in sorted(p for p in folder.iterdir() if p.suffix.lower() in SOUNDS):
        text = file.with_suffix(".txt")
        if not text.exists():
            raise ValueError(
                f"{file} has no caption; write it into {text.name} beside it, or into {TABLE}"
            )
        words = text.read_text(encoding="utf-8").strip()
        found.append(Entry(file, words, _split(file.name), {}))
    return found


def _split(name: str) -> str:
    first = hashlib.sha256(name.encode()).digest()[0] % 20
    return {0: "validation", 1: "test"}.get(first, "train")


def _plan(known: dict[str, Any], bpm: float) -> Plan | None:
    """The plan a line tells; ValueError for chords without a tempo, or names that are none."""
    if not known.get("chords"):
        return None
    if not bpm:
        raise ValueError("chords, one a bar, need a bpm")
    chords = tuple(chord_number(name) for name in known["chords"])
    names = known.get("sections")
    sections = tuple(SECTIONS.index(name) for name in names) if names else form(len(chords))
    if len(sections) != len(chords):
        raise ValueError(f"{len(sections)} sections for {len(chords)} chords")
    return Plan(bpm, chords, sections)


def _pieces(rows: list[Entry]) -> Iterator[Piece]:
    for row in rows:
        try:
            bpm = check_bpm(row.known["bpm"]) if row.known.get("bpm") else 0.0
            key = key_number(row.known["key"]) if row.known.get("key") else None
            plan = _plan(row.known, bpm)
        except (ValueError, TypeError) as error:
            raise ValueError(f"what is said of {row.file} cannot be: {error}") from error
        whole, name = read(row.file, RATE), row.known.get("instrument")
        for first in range(0, max(1, len(whole) - LEAST * HOP + 1), FRAMES * HOP):
            part = whole[first : first + FRAMES * HOP]
            # The plan counts from the first sample, so that further parts are without.
            yield Piece(part, row.text, key, name, bpm, plan if first == 0 else None)


def read_folder(folder: Path, split: str = "train", name: str = "") -> Samples:
    """The pieces of one split of such a folder.

    ValueError for a table or a sound that cannot be read, and for a split that is empty.
    """
    if split not in SPLITS:
        raise ValueError(f"music has no split {split!r}; choose one of {', '.join(SPLITS)}")
    every = entries(folder)
    rows = [each for each in every if each.split == split]
    if not rows:
        raise ValueError(f"{folder} holds no music of the split {split!r}; add some")
    instruments = sorted({str(x.known["instrument"]) for x in every if x.known.get("instrument")})
    found = gather(_pieces(rows), name or str(folder), instruments)
    if split != "train" or not any(each.split == "test" for each in every):
        return found
    # Only what is said of them: their sounds are read when they are measured against.
    kept = read_folder(folder, "test", name)
    return replace(found, held_out=kept.captions, held_out_cond=kept.cond)
