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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from genkit.audio.files import wav_bytes
from genkit.audio.fluidsynth import FONT, check_installed, levelled, rendered
from genkit.audio.midi import midi_bytes
from genkit.data.cache import cache_folder
from genkit.data.music import NAME
from genkit.data.music_folder import TABLE
from genkit.data.music_samples import FRAMES, HOP, RATE
from genkit.data.songs import SPLITS, compose
from genkit.harmony import CHORDS, KEYS, SECTIONS

SECONDS = FRAMES * HOP / RATE
HELD_OUT = 100  # songs of validation and of test, at most


def render(folder: Path, split: str, number: int, font: Path) -> dict:
    """Render one song, unless it is there; its line of the table."""
    name = f"{split}-{number:05d}"
    song = compose(split, number, SECONDS)
    kept = folder / f"{name}.wav"
    if not kept.exists():
        midi, aside = folder / f"{name}.part.mid", folder / f"{name}.part"
        midi.write_bytes(midi_bytes(song.notes, song.programs, song.plan.bpm))
        room = {
            "synth.reverb.room-size": round(0.1 + 0.6 * song.reverb, 2),
            "synth.reverb.level": round(0.1 + 0.5 * song.reverb, 2),
        }
        audio = rendered(midi, font, RATE, room)[: FRAMES * HOP]
        aside.write_bytes(wav_bytes(levelled(audio), RATE))
        os.replace(aside, kept)
        midi.unlink()
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
    try:
        check_installed(asked.font)
    except ValueError as error:
        raise SystemExit(str(error)) from error
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
