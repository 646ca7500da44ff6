"""Render songs by rule with fluidsynth, with true tempo, key, chords, instruments and sections.

    apt-get install fluidsynth timgm6mb-soundfont
    python scripts/make_music.py --hours 2       # into $GENKIT_CACHE/music

Songs come from seeds (genkit.data.songs): 22.05 kHz mono, half a minute each. metadata.jsonl has
what is told of each (text, bpm, key, instrument, a chord and a section for every bar, split);
validation and test are combinations of key, tempo and instrument that train does not have. Melody,
voicing, rhythm, loudness, timing and reverb are told nowhere. A second run goes on where the first
was stopped. TimGM6mb by Tim Brechbill is under the GPL; sounds made with it are nobody's but yours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from genkit.audio.files import read, wav_bytes
from genkit.audio.midi import midi_bytes
from genkit.data.cache import cache_folder
from genkit.data.music import NAME
from genkit.data.music_folder import TABLE
from genkit.data.music_samples import FRAMES, HOP, RATE
from genkit.data.songs import SPLITS, Song, compose
from genkit.harmony import CHORDS, KEYS, SECTIONS

FONT = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")
SECONDS = FRAMES * HOP / RATE
HELD_OUT = 100  # songs of validation and of test, at most


def play(song: Song, midi: Path, wav: Path, font: Path) -> None:
    """Render a song to a stereo file at RATE."""
    midi.write_bytes(midi_bytes(song.notes, song.programs, song.plan.bpm))
    settings = {
        "synth.chorus.active": 0,
        "synth.reverb.room-size": round(0.1 + 0.6 * song.reverb, 2),
        "synth.reverb.level": round(0.1 + 0.5 * song.reverb, 2),
    }
    flags = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    command = ["fluidsynth", "-niq", "-g", "0.5", "-r", str(RATE), "-O", "s16", "-F", str(wav)]
    subprocess.run([*command, *flags, str(font), str(midi)], check=True, capture_output=True)


def render(folder: Path, split: str, number: int, font: Path) -> dict:
    """Render one song, unless it is there; its line of the table."""
    name = f"{split}-{number:05d}"
    song = compose(split, number, SECONDS)
    kept = folder / f"{name}.wav"
    if not kept.exists():
        midi, raw = folder / f"{name}.part.mid", folder / f"{name}.part.wav"
        play(song, midi, raw, font)
        audio = read(raw, RATE)[: FRAMES * HOP]
        level = 0.12 / float(np.sqrt(np.mean(audio.numpy() ** 2)))
        audio = audio * min(level, 0.95 / float(audio.abs().max()))
        aside = folder / f"{name}.part"
        aside.write_bytes(wav_bytes(audio, RATE))
        os.replace(aside, kept)
        midi.unlink()
        raw.unlink()
    return {
        "file_name": kept.name,
        "text": song.text,
        "bpm": song.plan.bpm,
        "key": KEYS[song.key],
        "instrument": song.instrument,
        "chords": [CHORDS[chord] for chord in song.plan.chords],
        "sections": [SECTIONS[section] for section in song.plan.sections],
        "split": split,
    }


def main() -> None:
    """Render what is asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="of training music, about")
    parser.add_argument("--font", type=Path, default=FONT, help="a soundfont")
    parser.add_argument("--out", type=Path, default=cache_folder() / NAME)
    asked = parser.parse_args()
    if shutil.which("fluidsynth") is None:
        raise SystemExit("fluidsynth is not there: apt-get install fluidsynth")
    if not asked.font.is_file():
        raise SystemExit(f"{asked.font} is not there: apt-get install timgm6mb-soundfont")
    asked.out.mkdir(parents=True, exist_ok=True)
    train = max(1, round(asked.hours * 3600 / SECONDS))
    few = min(HELD_OUT, max(10, train // 5))
    counts = dict(zip(SPLITS, (train, few, few), strict=True))
    jobs = [(split, number) for split, count in counts.items() for number in range(count)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = list(pool.map(lambda job: render(asked.out, job[0], job[1], asked.font), jobs))
    (asked.out / TABLE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} songs, {len(lines) * SECONDS / 3600:.2f} h, in {asked.out}")


if __name__ == "__main__":
    main()
