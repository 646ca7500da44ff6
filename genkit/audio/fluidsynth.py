"""MIDI files rendered by fluidsynth (Debian's package), with a soundfont."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from genkit.audio.files import read

FONT = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")
LOUDNESS, PEAK = 0.12, 0.95
LIMIT = 60.0  # seconds: a minute of sound takes one, and some files never end


def check_installed(font: Path) -> None:
    """ValueError, saying what to install, without fluidsynth or the soundfont."""
    if shutil.which("fluidsynth") is None:
        raise ValueError("fluidsynth is not there: apt-get install fluidsynth")
    if not font.is_file():
        raise ValueError(f"{font} is not there: apt-get install timgm6mb-soundfont")


def rendered(midi: Path, font: Path, rate: int, settings: Mapping[str, float]) -> Tensor:
    """The samples (n,) at `rate` of a MIDI file, by fluidsynth's settings, without chorus.

    ValueError where it does not end within LIMIT.
    """
    every = {"synth.chorus.active": 0, **settings}
    flags = [part for key, value in every.items() for part in ("-o", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "whole.wav"
        command = ["fluidsynth", "-niq", "-g", "0.5", "-r", str(rate), "-O", "s16", "-F", str(wav)]
        command += [*flags, str(font), str(midi)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"fluidsynth has not ended with {midi} in {LIMIT:g} s") from error
        return read(wav, rate)


def levelled(audio: Tensor) -> Tensor:
    """Samples (n,) at a root mean square of LOUDNESS, or as near as PEAK allows."""
    level = LOUDNESS / float(audio.square().mean().sqrt())
    return audio * min(level, PEAK / float(audio.abs().max()))
