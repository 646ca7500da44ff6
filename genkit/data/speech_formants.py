"""Formant speech: two synthetic voices made of pulses, noise and three resonances, with no package.

A voice for tests and for trying the commands, made from seeds while it is loaded; it is no human
voice and hard to understand. Sentences by `genkit.data.sentences`, words by letter-to-sound rules.
Rate, pitch and its contour, and the equaliser vary without being told in any condition.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genkit.audio.spectra import SPEECH, istft, stft
from genkit.data.base import Samples
from genkit.data.sentences import sentences
from genkit.data.speech_samples import Utterance, equalised, gather
from genkit.phonemes import phonemes

METHOD = "edm"
SPEAKERS = ("low", "high")
PITCH, SCALE = (105.0, 190.0), (1.0, 1.17)  # Hz, and what the formants are multiplied by
COUNT = {"train": 240, "validation": 40, "test": 40}
# Phoneme: first to third formant in Hz, voicing, noise, loudness, seconds.
SHAPES = {
    "AA": (730, 1090, 2440), "AE": (660, 1720, 2410), "AH": (520, 1190, 2390),
    "AO": (570, 840, 2410), "EH": (530, 1840, 2480), "ER": (490, 1350, 1690),
    "IH": (390, 1990, 2550), "IY": (270, 2290, 3010), "UH": (440, 1020, 2240),
    "UW": (300, 870, 2240), "W": (300, 650, 2200), "Y": (270, 2200, 3000),
    "R": (350, 1200, 1600), "L": (380, 1000, 2600), "M": (250, 1000, 2200),
    "N": (250, 1600, 2500), "NG": (250, 2000, 2700),
}  # fmt: skip
GLIDES = {"AW": ("AA", "UH"), "AY": ("AA", "IH"), "EY": ("EH", "IY"), "OW": ("AO", "UH")}
GLIDES |= {"OY": ("AO", "IY")}
# Phoneme: centre of its noise in Hz, its loudness, voiced or not, seconds.
NOISES = {
    "S": (6500, 0.7, 0, 0.10), "Z": (6500, 0.5, 1, 0.08), "SH": (3000, 0.8, 0, 0.11),
    "ZH": (3000, 0.5, 1, 0.08), "F": (5000, 0.3, 0, 0.09), "V": (4500, 0.2, 1, 0.06),
    "TH": (5500, 0.25, 0, 0.09), "DH": (4500, 0.2, 1, 0.05), "HH": (1500, 0.3, 0, 0.06),
    "P": (900, 0.6, 0, 0.07), "B": (700, 0.5, 1, 0.06), "T": (4500, 0.8, 0, 0.07),
    "D": (4000, 0.6, 1, 0.06), "K": (2200, 0.8, 0, 0.08), "G": (1900, 0.6, 1, 0.06),
    "CH": (3500, 0.9, 0, 0.11), "JH": (3200, 0.7, 1, 0.09),
}  # fmt: skip


def _targets(symbols: list[str]) -> list[tuple[tuple[float, ...], float, float, float, float]]:
    """(formants, voicing, noise centre, noise level, seconds) of every stretch of sound."""
    found, rest = [], (500.0, 1500.0, 2500.0)
    for symbol in symbols:
        name, stress = symbol.rstrip("012"), symbol[-1]
        if name in GLIDES:
            for part in GLIDES[name]:
                found.append((SHAPES[part], 1.0, 1000.0, 0.0, 0.09))
        elif name in SHAPES:
            seconds = {"1": 0.13, "2": 0.11, "0": 0.08}.get(stress, 0.07)
            found.append((SHAPES[name], 1.0, 1000.0, 0.0, seconds))
        elif name in NOISES:
            centre, level, voiced, seconds = NOISES[name]
            found.append((rest, 0.35 * voiced, float(centre), level, seconds))
        else:
            found.append(
                (rest, 0.0, 1000.0, 0.0, {".": 0.12, ",": 0.18, " ": 0.02}.get(name, 0.12))
            )
    return found


def _resonances(formants: np.ndarray, scale: float) -> np.ndarray:
    """Gains (frames, bins) of three resonances falling by 6 dB an octave."""
    hertz = np.linspace(0, SPEECH.sample_rate / 2, SPEECH.n_fft // 2 + 1)[None]
    gains = np.zeros((len(formants), hertz.shape[1]))
    for i, (width, level) in enumerate(((90, 1.0), (120, 0.6), (180, 0.3))):
        centre = formants[:, i : i + 1] * scale
        gains += level / np.sqrt(1 + ((hertz - centre) / width) ** 2)
    return gains / (1 + hertz / 1200)


def speak(text: str, speaker: int, rng: np.random.RandomState) -> tuple[Tensor, list[float]]:
    """(samples (n,), the seconds at which each stretch of sound ends) of a sentence."""
    parts = _targets(phonemes(text, dictionary=False))
    rate = rng.uniform(0.85, 1.2)
    ends = np.cumsum([part[4] / rate for part in parts])
    n = int(ends[-1] * SPEECH.sample_rate)
    centres = (np.arange(-(-n // SPEECH.hop)) + 0.5) * SPEECH.hop / SPEECH.sample_rate
    middles = ends - np.diff(ends, prepend=0) / 2
    track = np.array([[*shape, voice, centre, level] for shape, voice, centre, level, _ in parts])
    at = np.stack([np.interp(centres, middles, column) for column in track.T], 1)
    time = np.arange(n) / SPEECH.sample_rate
    bend = 1 + rng.uniform(0.04, 0.14) * np.sin(
        2 * np.pi * (rng.uniform(0.2, 0.7) * time + rng.rand())
    )
    pitch = PITCH[speaker] * rng.uniform(0.9, 1.1) * bend * (1 - 0.12 * time / time[-1])
    phase = np.cumsum(pitch / SPEECH.sample_rate)
    pulses = np.diff(np.floor(phase), prepend=0.0) * np.sqrt(SPEECH.sample_rate / pitch)
    sources = torch.from_numpy(np.stack([pulses, rng.randn(n)])).float()
    voiced, noise = stft(sources, SPEECH.n_fft, SPEECH.hop)
    hertz = np.linspace(0, SPEECH.sample_rate / 2, SPEECH.n_fft // 2 + 1)[None]
    band = at[:, 5:6] / (1 + ((hertz - at[:, 4:5]) / (0.25 * at[:, 4:5] + 300)) ** 2)
    gains = _resonances(at[:, :3], SCALE[speaker]) * at[:, 3:4]
    spectra = (
        voiced * torch.from_numpy(gains).float() + noise * torch.from_numpy(band).float() * 0.3
    )
    audio = istft(spectra[None], n, SPEECH.n_fft, SPEECH.hop)[0]
    audio = audio / audio.abs().max() * 0.6
    return equalised(audio, rng), ends.tolist()


def _utterances(split: str, n: int) -> list[Utterance]:
    made = []
    for number, text in enumerate(sentences(split, n)):
        rng = np.random.RandomState([len(split), number])
        made.append((speak(text, number % 2, rng)[0], text, number % 2))
    return made


def load(split: str = "train", n: int | None = None) -> Samples:
    """The utterances of a split: normalised log-mels (n, FRAMES, bands), frames, speakers,
    texts."""
    if split not in COUNT:
        raise ValueError(f"speech-formants have no split {split!r}; choose {', '.join(COUNT)}")
    found = gather(_utterances(split, n or COUNT[split]), "speech-formants", SPEAKERS)
    if split != "train":
        return found
    held = gather(_utterances("test", COUNT["test"]), "speech-formants", SPEAKERS)
    return replace(found, held_out=held.captions, held_out_cond=held.cond)
