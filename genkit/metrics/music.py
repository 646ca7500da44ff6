"""Figures of music: does it have the key, the tempo and the chords that it was asked to have.

Chroma: peaks of a 372 ms spectrum between 50 and 700 Hz, folded into twelve pitch classes (chosen
on 36 stretches of the test split: 186 ms and 100 Hz to 2 kHz gave 64% of the chords, so 88%). Key:
the best correlation of the mean of its frames, each of length 1, with the 24 profiles of Temperley
(2007, "Music and Probability", the Kostka-Payne corpus; on 96 stretches of the validation split
they gave 90% of the keys, Krumhansl & Kessler's 73%). Chords: the triad most like the chroma of a
beat. Tempo: the best sum of the autocorrelation of onsets (rises of a log-mel) at one to four
beats, under a wide log-normal preference (Ellis 2007).
None knows its way with certainty: what real music scores, and what the codec leaves of it, is the
ceiling. A tempo agrees within 4%; `tempo_octaves` lets half, double, a third or triple pass too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from genkit.audio.spectra import MUSIC, Mels, log_mel, stft
from genkit.harmony import KEYS, Plan, notes_of
from genkit.metrics.suite import Reference

RATE = MUSIC.sample_rate
N_FFT, HOP = 8192, 1024  # of chroma
ONSETS = Mels(RATE, 1024, 256, 40, 0.0, 11_025.0)
LOW, HIGH = 50.0, 700.0  # Hz
AROUND = 30  # bins on either side that a peak stands out from
HEARD = int(HIGH * N_FFT / RATE) + 1 + AROUND  # bins that are looked at
LIKELY, SPREAD = 110.0, 0.7  # bpm, and octaves of the preference
NEAR = 0.04  # share by which a tempo may be off
PART = 32  # pieces that are looked at at once
# How often the twelve notes sound in C major and in C minor.
PROFILES = (
    (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400),
    (0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330),
)


class Asked(Protocol):
    """What a sample was asked to be: its key's number (24: none), and `first`, the frame of 1024
    samples of a plan with which it begins."""

    @property
    def key(self) -> int: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def first(self) -> int: ...


@cache
def _folding() -> Tensor:
    """(HEARD, 12): how much a bin counts for each pitch class."""
    hertz = torch.arange(HEARD) * RATE / N_FFT
    pitch = 69 + 12 * torch.log2(hertz.clamp(min=1) / 440)
    off = (pitch[:, None] - torch.arange(12) + 6) % 12 - 6
    heard = (hertz >= LOW) & (hertz <= HIGH)
    return (-((off / 0.35) ** 2)).exp() * heard[:, None]


def chroma(audio: Tensor) -> Tensor:
    """Samples (b, n) as (b, frames, 12), a frame every HOP samples."""
    magnitude = stft(audio, N_FFT, HOP)[..., :HEARD].abs()
    around = torch.nn.functional.avg_pool1d(magnitude, 2 * AROUND + 1, 1, AROUND)
    # Only what stands out from its surroundings is a tone; drums do not.
    peaks = (magnitude - 1.5 * around).clamp(min=0) ** 0.4
    return peaks @ _folding()


def keys_of(tones: Tensor) -> Tensor:
    """The keys (b,), as numbers of KEYS, of chroma (b, frames, 12)."""
    mean = torch.nn.functional.normalize(tones, dim=-1).mean(1)
    profiles = torch.stack([torch.tensor(p).roll(k) for p in PROFILES for k in range(12)])
    mean = mean - mean.mean(1, keepdim=True)
    profiles = profiles - profiles.mean(1, keepdim=True)
    return (mean @ profiles.T / profiles.norm(dim=1)).argmax(1)


def movement(tones: Tensor) -> Tensor:
    """How much chroma (b, frames, 12) moves, (b,): 1 less the cosine with that of
    186 ms before. A held chord agrees with what was asked as a melody does, and moves less."""
    heard = torch.nn.functional.normalize(tones, dim=-1)
    return 1 - (heard[:, 4:] * heard[:, :-4]).sum(-1).mean(1)


def chords_of(tones: Tensor, beats: Sequence[tuple[float, float]]) -> Tensor:
    """The chords (beats,), as numbers of CHORDS, of chroma (frames, 12) within spans in seconds."""
    rows = []
    for begin, end in beats:
        first = min(int(begin * RATE / HOP + 0.5), len(tones) - 1)
        rows.append(tones[first : max(first + 1, int(end * RATE / HOP + 0.5))].mean(0))
    heard = torch.nn.functional.normalize(torch.stack(rows), dim=1)
    triads = torch.zeros(24, 12)
    for chord in range(24):
        triads[chord, list(notes_of(chord))] = 1
    return (heard @ triads.T).argmax(1)


def onsets(audio: Tensor) -> Tensor:
    """Samples (b, n) as the strength of onsets (b, frames), a frame every 256 samples."""
    rise = torch.diff(log_mel(audio, ONSETS).clamp(min=-6), dim=1).clamp(min=0).mean(-1)
    return rise - rise.mean(1, keepdim=True)


def tempi_of(audio: Tensor, slowest: float = 55.0, fastest: float = 210.0) -> Tensor:
    """Beats per minute (b,) of samples (b, n)."""
    strength = onsets(audio)
    n = strength.shape[1]
    spectrum = torch.fft.rfft(strength, 2 * n)
    same = torch.fft.irfft(spectrum.abs() ** 2, 2 * n)[:, :n]
    # A lag is seen fewer times the longer it is.
    same = same / torch.arange(n, 0, -1) * (torch.arange(n) < 0.8 * n)
    count = int(torch.log2(torch.tensor(fastest / slowest)) / 0.005)
    bpm = slowest * 2 ** (0.005 * torch.arange(count))
    total = torch.zeros(len(audio), count)
    for k in (1, 2, 3, 4):
        lag = (k * 60 / bpm * RATE / ONSETS.hop).clamp(max=n - 2)
        low = lag.long()
        total += same[:, low] + (lag - low) * (same[:, low + 1] - same[:, low])
    liking = (-0.5 * ((bpm / LIKELY).log2() / SPREAD) ** 2).exp()
    return bpm[(total * liking).argmax(1)]


def beats_of(asked: Asked, seconds: float) -> list[tuple[float, float, int]]:
    """The beats of a sample: when they begin and end in it, and their chords."""
    if not asked.plan.chords:
        return []
    long, found, start = 60 / asked.plan.bpm, [], asked.first * HOP / RATE
    beat = int(start / long) + 1
    while (beat + 1) * long - start <= seconds:
        chord = asked.plan.chord_at((beat + 0.5) * long)
        if chord is not None:
            found.append((beat * long - start, (beat + 1) * long - start, chord))
        beat += 1
    return found


class MusicFeatures:
    """What a Frechet distance of log-mels compares: mean, deviation and movement of 20 bands; no
    network."""

    def features(self, x: Tensor) -> Tensor:
        """Sound (n, samples) as (n, 60)."""
        return torch.cat([self._some(part) for part in x.split(PART)])

    def _some(self, audio: Tensor) -> Tensor:
        bands = MUSIC.normalise(log_mel(audio, MUSIC)).unflatten(-1, (20, -1)).mean(-1)
        moved = torch.diff(bands, dim=1)
        parts = (bands.mean(1), bands.std(1, correction=0), moved.std(1, correction=0))
        return torch.cat(parts, 1)


class MusicFigures:
    """A data set's own figures of music: shares of samples, or of beats, that agree."""

    def __call__(self, samples: Tensor, features: Tensor, asked: Any) -> dict[str, float]:
        """key: shares of the very key. tempo: within NEAR; tempo_octaves: or a simple multiple.
        chords: of beats. Samples of which one is not known count not for it. movement: of tones,
        whatever was asked."""
        tones = torch.cat([chroma(part) for part in samples.split(PART)])
        keys = keys_of(tones).tolist()
        tempi = torch.cat([tempi_of(part) for part in samples.split(PART)]).tolist()
        seconds, right = samples.shape[1] / RATE, []
        for part, each in zip(tones, asked, strict=True):
            beats = beats_of(each, seconds)
            if beats:
                heard = chords_of(part, [beat[:2] for beat in beats])
                right.append((heard == torch.tensor([beat[2] for beat in beats])).float().mean())
        known = [(k, each.key) for k, each in zip(keys, asked, strict=True) if each.key < len(KEYS)]
        paced = [(t, each.plan.bpm) for t, each in zip(tempi, asked, strict=True) if each.plan.bpm]
        found = {"movement": float(movement(tones).mean())}
        if known:
            found["key"] = sum(a == b for a, b in known) / len(known)
        if paced:
            found["tempo"] = sum(agrees(a, b) for a, b in paced) / len(paced)
            found["tempo_octaves"] = sum(agrees(a, b, True) for a, b in paced) / len(paced)
        if right:
            found["chords"] = float(torch.stack(right).mean())
        return found


def agrees(bpm: float, asked: float, octaves: bool = False) -> bool:
    """Whether a tempo is the one asked for, or a simple multiple of it."""
    multiples = (1, 2, 1 / 2, 3, 1 / 3) if octaves else (1,)
    return any(abs(bpm / (asked * each) - 1) <= NEAR for each in multiples)


def music_reference(
    name: str,
    real: Tensor,
    train: Tensor,
    asked: Sequence[Asked],
    round_trip: Callable[[Tensor], Tensor],
) -> Reference:
    """The reference of a data set of music: real sound (m, samples) and what it was asked to be.

    Its floor is the real music itself through `round_trip`: what the codec costs.
    """
    seen, fresh = train[: max(1, len(train) // 4)], (round_trip(real), tuple(asked[: len(real)]))
    return Reference.of(name, real, seen, MusicFeatures(), MusicFigures(), fresh)
