"""Spectra with exact sample counts: frames, their inverse, mel bands, log-mels, Griffin-Lim.

n samples have ceil(n / hop) frames, and frame k is centred on sample (k + 1/2) hop, as HiFi-GAN and
Vocos' "same" padding have it; outside a clip is silence, so that a clip padded with zeros has the
frames of the clip alone. Mel bands are Slaney's (Auditory Toolbox, 1998), as librosa's defaults.
Griffin-Lim: Perraudin et al. 2013, "A fast Griffin-Lim algorithm", alg. 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

FLOOR = 1e-5  # the smallest mel magnitude that is told from silence


@dataclass(frozen=True)
class Mels:
    """What a log-mel is made of. mean, std: of log-mels, by which they are brought to mean 0 and
    deviation 0.5; measured on the flite voices of `genkit.data.speech_flite` and kept for all."""

    sample_rate: int = 16_000
    n_fft: int = 1024
    hop: int = 256
    bands: int = 80
    low: float = 0.0
    high: float = 8000.0
    mean: float = -5.5
    std: float = 2.4

    def frames(self, seconds: float) -> int:
        """The frames of so many seconds, rounded to the nearest."""
        return round(seconds * self.sample_rate / self.hop)

    def normalise(self, log_mel: Tensor) -> Tensor:
        """Log-mels as networks see them."""
        return (log_mel - self.mean) / (2 * self.std)

    def restore(self, x: Tensor) -> Tensor:
        """`normalise` undone."""
        return x * (2 * self.std) + self.mean

    @property
    def silence(self) -> float:
        """A normalised log-mel of silence."""
        return (math.log(FLOOR) - self.mean) / (2 * self.std)


SPEECH = Mels()
# mean and std measured on the songs of scripts/make_music.py.
MUSIC = Mels(22_050, 2048, 512, 80, 0.0, 11_025.0, -3.6, 2.5)


@cache
def _hann(n: int) -> Tensor:
    return torch.hann_window(n)


def stft(audio: Tensor, n_fft: int, hop: int) -> Tensor:
    """Samples (b, n) as complex spectra (b, ceil(n / hop), n_fft / 2 + 1), Hann windows."""
    n = audio.shape[-1]
    count, left = -(-n // hop), (n_fft - hop) // 2
    right = (count - 1) * hop + n_fft - left - n
    padded = F.pad(audio, (left, right))
    window = _hann(n_fft).to(padded)
    return torch.fft.rfft(padded.unfold(-1, n_fft, hop) * window)


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Frames (b, f, n) laid over each other every `hop` samples, which divide n: (b, (f - 1) hop +
    n)."""
    b, f, n = frames.shape
    assert n % hop == 0, f"frames of {n} are no whole number of hops of {hop}"
    parts = frames.reshape(b, f, n // hop, hop)
    total = frames.new_zeros(b, f + n // hop - 1, hop)
    for i in range(n // hop):
        total[:, i : i + f] += parts[:, :, i]
    return total.reshape(b, -1)


def istft(spectra: Tensor, n: int, n_fft: int, hop: int) -> Tensor:
    """The n samples (b, n) whose `stft` is nearest to spectra (b, frames, bins); theirs exactly
    where they are one."""
    window = _hann(n_fft).to(spectra.real)
    frames = torch.fft.irfft(spectra, n_fft) * window
    weight = overlap_add((window**2).expand(1, frames.shape[1], -1), hop)
    left = (n_fft - hop) // 2
    total, weight = overlap_add(frames, hop)[:, left : left + n], weight[:, left : left + n]
    return total / weight.clamp(min=1e-8)


def _slaney(hertz: Tensor) -> Tensor:
    """Slaney's mel scale: linear to 1 kHz, 27 steps to a factor of 6.4 above."""
    step = math.log(6.4) / 27
    return torch.where(hertz < 1000, hertz * 3 / 200, 15 + torch.log(hertz / 1000) / step)


def _hertz(mel: Tensor) -> Tensor:
    step = math.log(6.4) / 27
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * step))


@cache
def mel_filters(sample_rate: int, n_fft: int, bands: int, low: float, high: float) -> Tensor:
    """(bins, bands): triangles of equal area, evenly spaced in mel."""
    ends = _slaney(torch.tensor([low, high], dtype=torch.float64))
    edges = _hertz(torch.linspace(float(ends[0]), float(ends[1]), bands + 2, dtype=torch.float64))
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * sample_rate / n_fft
    up = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(up, down).clamp(min=0)
    return (triangles * 2 / (edges[2:] - edges[:-2])).float()


def _filters(mels: Mels) -> Tensor:
    return mel_filters(mels.sample_rate, mels.n_fft, mels.bands, mels.low, mels.high)


def log_mel(audio: Tensor, mels: Mels = SPEECH) -> Tensor:
    """Samples (b, n) in [-1, 1] as log-mels (b, ceil(n / hop), bands): the natural logarithm of
    band magnitudes."""
    magnitude = stft(audio, mels.n_fft, mels.hop).abs()
    return (magnitude @ _filters(mels).to(magnitude)).clamp(min=FLOOR).log()


@torch.no_grad()
def griffin_lim(log_mels: Tensor, mels: Mels = SPEECH, rounds: int = 32) -> Tensor:
    """Log-mels (b, frames, bands) as samples (b, frames hop) without any network: magnitudes by the
    pseudo-inverse of the bands, phases by fast Griffin-Lim from phase 0."""
    inverse = torch.linalg.pinv(_filters(mels).double()).to(log_mels)
    magnitude = (log_mels.exp() @ inverse).clamp(min=FLOOR)
    n = log_mels.shape[1] * mels.hop
    phases = torch.ones_like(magnitude, dtype=torch.complex64)
    before = torch.zeros_like(phases)
    for _ in range(rounds):
        now = stft(istft(magnitude * phases, n, mels.n_fft, mels.hop), mels.n_fft, mels.hop)
        moved = now + 0.99 * (now - before)
        phases, before = moved / moved.abs().clamp(min=1e-12), now
    return istft(magnitude * phases, n, mels.n_fft, mels.hop)
