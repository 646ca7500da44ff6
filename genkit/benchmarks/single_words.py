"""How many words are recognised when they are said alone, by each voice, and by flite's own.

pocketsphinx hears them with a loop over all words of our sentences. flite made the voices that are
shipped, so where it is installed its own sound of the same word is the ceiling.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from genkit.audio.files import read
from genkit.audio.spectra import SPEECH
from genkit.data.sentences import HELD_OUT, vocabulary
from genkit.metrics.speech import WordLoop, heard_here
from genkit.rng import sample_generators

KNOWN = (
    "apple bottle bridge castle cloud doctor flower garden hammer horse island kitchen letter "
    "monkey painter river school table teacher window"
).split()
WORDS = {"known": KNOWN, "held_out": sorted(HELD_OUT)}
VOICES = 4  # at most


def flite_voices() -> list[str]:
    """The voices of flite on this machine; none where it is not installed."""
    if shutil.which("flite") is None:
        return []
    done = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=True)
    return done.stdout.partition(":")[2].split()


def by_flite(voice: str, words: Sequence[str]) -> list[Tensor]:
    """Each word (samples,) as flite's voice says it."""
    sounds = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "word.wav"
        for word in words:
            command = ["flite", "-voice", voice, "-t", word, "-o", str(file)]
            subprocess.run(command, capture_output=True, check=True)
            sounds.append(read(file, SPEECH.sample_rate))
    return sounds


def by_pipeline(pipeline: Any, voice: str, words: Sequence[str]) -> list[Tensor]:
    """Each word (samples,) as a pipeline's voice says it."""
    draws = sample_generators(0, len(words))
    made = pipeline(list(words), voice, generator=draws)
    return [sound[0, : int(n)] for sound, n in zip(made.audios, made.lengths, strict=True)]


def recognised(loop: WordLoop, sounds: Sequence[Tensor], words: Sequence[str]) -> float:
    """The share of sounds in which just their word is heard."""
    return sum(loop.hear(x) == [word] for x, word in zip(sounds, words, strict=True)) / len(words)


def single_words(pipeline: Any) -> dict[str, dict[str, Any]] | None:
    """{"known", "held_out": {"words": how many, "recognised": {voice: share}, "flite": the same
    of flite's voices of that name}} for the first voices of a pipeline; None without pocketsphinx.

    "held_out" are words that our sentences keep from training.
    """
    if not heard_here():
        return None
    loop, there = WordLoop(vocabulary()), flite_voices()
    voices = pipeline.speakers[:VOICES]
    found = {}
    for kind, words in WORDS.items():
        made = {v: recognised(loop, by_pipeline(pipeline, v, words), words) for v in voices}
        real = {v: recognised(loop, by_flite(v, words), words) for v in voices if v in there}
        found[kind] = {"words": len(words), "recognised": made, "flite": real}
    return found


def told(found: dict[str, dict[str, Any]]) -> list[str]:
    """The figures for a person, a line for each kind of word."""
    lines = []
    for kind, row in found.items():
        shares = []
        for voice, share in row["recognised"].items():
            beside = f" (flite {row['flite'][voice]:.0%})" if voice in row["flite"] else ""
            shares.append(f"{voice} {share:.0%}{beside}")
        name = kind.replace("_", " ")
        lines.append(f"of {row['words']} {name} words, said alone, recognised: {', '.join(shares)}")
    return lines
