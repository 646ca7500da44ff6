"""A folder of speech in the layout of LJSpeech: metadata.csv and wavs/.

A line of metadata.csv is id|text, id|text|text with numbers read out, or that and |speaker; the
sound is wavs/<id>.wav (or .flac). Ids that begin with "validation-" or "test-" are of that split;
where none does, a fiftieth each is, told by a hash of the id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from genkit.audio.files import read
from genkit.audio.spectra import SPEECH
from genkit.data.base import Samples
from genkit.data.speech_samples import SPOKEN, Utterance, gather

METHOD = "edm"
PRESETS = SPOKEN
TABLE, WAVS = "metadata.csv", "wavs"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Line:
    """One utterance of the table."""

    id: str
    text: str
    speaker: str


def holds(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / TABLE).is_file() and (folder / WAVS).is_dir()


def read_table(folder: Path) -> list[Line]:
    """The lines of the folder's table. ValueError for one that is no line, with its number."""
    found = []
    text = (folder / TABLE).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split("|")
        if not 2 <= len(parts) <= 4 or not parts[0] or not parts[1].strip():
            raise ValueError(
                f"line {number} of {folder / TABLE} is not id|text, id|text|text or "
                "id|text|text|speaker"
            )
        said = parts[2] if len(parts) > 2 and parts[2].strip() else parts[1]
        found.append(Line(parts[0], said, parts[3] if len(parts) > 3 else "speaker"))
    if not found:
        raise ValueError(f"{folder / TABLE} is empty")
    return found


def split_of(line: Line, marked: bool) -> str:
    """The split of a line; marked: whether the folder's ids say it."""
    if marked:
        head = line.id.partition("-")[0]
        return head if head in SPLITS else "train"
    first = int.from_bytes(hashlib.sha256(line.id.encode()).digest()[:4], "big") % 100
    return {0: "validation", 1: "validation", 2: "test", 3: "test"}.get(first, "train")


def read_folder(folder: Path, split: str = "train", name: str = "") -> Samples:
    """The utterances of one split of a folder in this layout.

    ValueError for a table or a sound that cannot be read, and for a split that is empty.
    """
    if split not in SPLITS:
        raise ValueError(f"speech has no split {split!r}; choose one of {', '.join(SPLITS)}")
    name = name or str(folder)
    lines = read_table(folder)
    marked = any(line.id.startswith(("validation-", "test-")) for line in lines)
    speakers = sorted({line.speaker for line in lines})
    parts = {part: [x for x in lines if split_of(x, marked) == part] for part in SPLITS}
    if not parts[split]:
        raise ValueError(f"{folder} holds no utterance of the split {split!r}; add some")
    found = gather(_sounds(folder, parts[split], speakers), name, speakers)
    if split != "train" or not parts["test"]:
        return found
    # Only what is said and by whom: their sounds are read when they are measured against.
    kept = read_folder(folder, "test", name)
    return replace(found, held_out=kept.captions, held_out_cond=kept.cond)


def _sounds(folder: Path, lines: list[Line], speakers: list[str]) -> Iterator[Utterance]:
    for line in lines:
        wav = folder / WAVS / f"{line.id}.wav"
        flac = wav.with_suffix(".flac")
        file = flac if flac.exists() and not wav.exists() else wav
        yield read(file, SPEECH.sample_rate), line.text, speakers.index(line.speaker)
