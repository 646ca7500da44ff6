"""Render those scores of music21's corpus that themselves say a free licence, with fluidsynth.

    apt-get install fluidsynth timgm6mb-soundfont && pip install music21
    python scripts/make_corpus_music.py --out corpus
    genkit train flow_matching --data corpus --decoder runs/music-codec/codec --out runs/corpus

A folder of music as genkit reads it: metadata.jsonl has, of each piece, who wrote it, its key as
music21 hears it (Krumhansl and Schmuckler), its tempo where it has one throughout, and in "licence"
what the score says of its rights, to be given with whatever is made of it. Most of the corpus says
nothing of its files, or keeps commercial use to itself, and is left out: of 10.5.1 ten scores are
free, of which nine are rendered, 12 minutes; with Weber's concertino fluidsynth does not end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from genkit.audio.files import wav_bytes
from genkit.audio.fluidsynth import FONT, check_installed, levelled, rendered
from genkit.data.music_folder import TABLE
from genkit.data.music_samples import RATE
from genkit.data.scores import ENDINGS, is_free, rights
from genkit.harmony import KEYS, key_number


def told(score: Any, name: str, licence: str) -> dict[str, Any]:
    """The line of the table for a score of music21."""
    title = " ".join((score.metadata.title or "").split()) or name.replace("_", " ")
    key = score.analyze("key")
    tonic = key.tonic.name.replace("-", "b")
    line = {
        "file_name": f"{name}.wav",
        "text": f"{title} by {' '.join(str(score.metadata.composer).split())}",
        "key": KEYS[key_number(f"{tonic} {key.mode}")],
        "licence": licence,
    }
    tempos = {mark.getQuarterBPM() for _, _, mark in score.metronomeMarkBoundaries()}
    return line | ({"bpm": tempos.pop()} if len(tempos) == 1 else {})


def sound(score: Any, font: Path) -> Tensor:
    """The samples (n,) of a score of music21; ValueError where fluidsynth does not end."""
    with tempfile.TemporaryDirectory() as folder:
        midi = Path(score.write("midi", fp=Path(folder) / "score.mid"))
        return levelled(rendered(midi, font, RATE, {}))


def main() -> None:
    """Render every free score and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--font", type=Path, default=FONT, help="a soundfont")
    parser.add_argument("--out", type=Path, required=True, help="a folder to be made")
    asked = parser.parse_args()
    try:
        check_installed(asked.font)
        import music21
    except ValueError as error:
        raise SystemExit(str(error)) from error
    except ImportError as error:
        raise SystemExit("music21 is not there: pip install music21") from error
    warnings.filterwarnings("ignore", module="music21")  # of bars that are too full
    asked.out.mkdir(parents=True, exist_ok=True)
    corpus = Path(music21.__file__).parent / "corpus"
    scores = sorted(file for file in corpus.rglob("*") if file.suffix in ENDINGS)
    lines, seconds = [], 0.0
    for file in scores:
        if not is_free(licence := rights(file)):
            continue
        score: Any = music21.converter.parse(file)
        try:
            audio = sound(score, asked.font)
        except ValueError as error:
            print(f"{file.stem} is left out: {error}", file=sys.stderr)
            continue
        line = told(score, file.stem, licence)
        (asked.out / line["file_name"]).write_bytes(wav_bytes(audio, RATE))
        lines.append(line)
        seconds += len(audio) / RATE
        print(f"{line['text']}, {line['key']}, {len(audio) / RATE:.0f} s: {licence}")
    (asked.out / TABLE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} of {len(scores)} scores, {seconds / 60:.1f} minutes, in {asked.out}")


if __name__ == "__main__":
    main()
