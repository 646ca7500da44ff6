"""Render sentences of our grammar with Debian's flite voices, in the layout of LJSpeech.

    apt-get install flite && pip install ".[speech]"
    python scripts/make_speech.py --hours 2      # into $GENKIT_CACHE/speech-flite

Sentences, voices, rate, pitch, contour and equaliser all come from seeds. metadata.csv has
id|text|text|speaker; ids that begin with validation- and test- are held-out sentences, and every
test sentence has a word that train does not. phones.jsonl has flite's own phone times (seconds at
which each phone ends). The variation is told nowhere: not in the text, not in the speaker. About a
twentieth of real time on one core; a second run goes on where the first was stopped. A third of
training are words of the CMU dictionary, by themselves or in lists: the grammar's few hundred words
teach only their own sounds in their own company, and a new word is then said worse.
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
from genkit.audio.spectra import SPEECH
from genkit.data.cache import cache_folder
from genkit.data.sentences import SPLITS, sentences
from genkit.data.speech_flite import NAME
from genkit.data.speech_samples import equalised
from genkit.phonemes import dictionary_words

VOICES = {"slt": 175.0, "rms": 100.0, "awb": 130.0, "kal16": 105.0}  # and their pitch in Hz
SECONDS = 2.45  # of a sentence, on the average
HELD_OUT = 200  # sentences of validation and of test


def render(folder: Path, split: str, number: int, text: str) -> dict:
    """Render one sentence, unless it is there; what its lines say."""
    name = f"{split}-{number:06d}"
    rng = np.random.RandomState([SPLITS.index(split), number])
    voice = list(VOICES)[rng.randint(len(VOICES))]
    settings = {
        "duration_stretch": rng.uniform(0.85, 1.25),
        "int_f0_target_mean": VOICES[voice] * rng.uniform(0.88, 1.12),
        "int_f0_target_stddev": rng.uniform(6, 28),
    }
    wav, raw = folder / "wavs" / f"{name}.wav", folder / f"{name}.part.wav"
    told = folder / "phones" / f"{name}.json"
    if not told.exists() or json.loads(told.read_text())["text"] != text:
        flags = [
            part for key, value in settings.items() for part in ("--setf", f"{key}={value:.4f}")
        ]
        command = ["flite", "-voice", voice, *flags, "-psdur", "-t", text, "-o", str(raw)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        phones = [part.rsplit(":", 1) for part in done.stdout.split()]
        audio = equalised(read(raw, SPEECH.sample_rate), rng)
        raw.unlink()
        wav.write_bytes(wav_bytes(audio, SPEECH.sample_rate))
        times = [[phone, float(end)] for phone, end in phones]
        told.write_text(json.dumps({"text": text, "phones": times}))
    return {"id": name, "speaker": voice, **json.loads(told.read_text())}


def main() -> None:
    """Render what is asked for and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="of training speech, about")
    parser.add_argument("--out", type=Path, default=cache_folder() / NAME)
    asked = parser.parse_args()
    if shutil.which("flite") is None:
        raise SystemExit("flite is not there: apt-get install flite")
    for part in ("wavs", "phones"):
        (asked.out / part).mkdir(parents=True, exist_ok=True)
    train = max(1, round(asked.hours * 3600 / SECONDS))
    few = min(HELD_OUT, max(10, train // 10))
    counts = {"train": train, "validation": few, "test": few}
    jobs = [
        (split, number, text)
        for split, count in counts.items()
        for number, text in enumerate(sentences(split, count, known=dictionary_words()))
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = list(pool.map(lambda job: render(asked.out, *job), jobs))
    with (asked.out / "phones.jsonl").open("w") as file:
        file.writelines(json.dumps({"id": x["id"], "phones": x["phones"]}) + "\n" for x in lines)
    table = "".join(f"{x['id']}|{x['text']}|{x['text']}|{x['speaker']}\n" for x in lines)
    (asked.out / "metadata.csv").write_text(table)
    seconds = sum(line["phones"][-1][1] for line in lines)
    print(f"{len(lines)} sentences, {seconds / 3600:.2f} h, in {asked.out}")


if __name__ == "__main__":
    main()
