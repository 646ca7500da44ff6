"""Small discriminators of sound, and the losses of a vocoder against them.

Spectrograms of several sizes, each seen by a few 2-D convolutions (UnivNet, Jang et al. 2021, arXiv
2106.07889, sec. 2.3), and the samples folded at several periods (HiFi-GAN, Kong et al. 2020, arXiv
2010.05646, sec. 2.3), both much smaller than published. Multi-resolution STFT loss: Yamamoto et al.
2020 (arXiv 1910.11480, eq. 6). Losses are hinges, as in Vocos.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genkit.audio.spectra import stft
from genkit.terms import hinge_head, hinge_student

SIZES = ((512, 128), (1024, 256), (2048, 512))  # (n_fft, hop)
PERIODS = (2, 3, 5, 7)


class _Convolutions(nn.Module):
    def __init__(self, width: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        widths = (1, width, 2 * width, 2 * width)
        pad = (kernel[0] // 2, kernel[1] // 2)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(a, b, kernel, stride, pad))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.leave = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.leave(x).flatten(1), features


class Discriminators(nn.Module):
    """(logits (b, places), features) of samples (b, n), one pair for every size and period."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.spectra = nn.ModuleList(_Convolutions(width, (3, 9), (1, 2)) for _ in SIZES)
        self.periods = nn.ModuleList(_Convolutions(width, (5, 1), (3, 1)) for _ in PERIODS)

    def forward(self, audio: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        found = [
            each(stft(audio, *size).abs().clamp(min=1e-5).log()[:, None])
            for each, size in zip(self.spectra, SIZES, strict=True)
        ]
        for each, period in zip(self.periods, PERIODS, strict=True):
            whole = audio[:, : audio.shape[1] // period * period]
            found.append(each(whole.reshape(len(audio), 1, -1, period)))
        return found


def stft_loss(made: Tensor, real: Tensor, sizes: Sequence[tuple[int, int]] = SIZES) -> Tensor:
    """Spectral convergence and L1 of log magnitudes per sample (b,), the mean over sizes."""
    total = made.new_zeros(len(made))
    for size in sizes:
        a, b = stft(made, *size).abs().clamp(min=1e-5), stft(real, *size).abs().clamp(min=1e-5)
        far = (a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1).clamp(min=1e-3)
        total = total + far + (a.log() - b.log()).abs().flatten(1).mean(1)
    return total / len(sizes)


Judged = Sequence[tuple[Tensor, list[Tensor]]]


def discriminator_loss(real: Judged, made: Judged) -> Tensor:
    """The hinge of every discriminator, per sample (b,)."""
    parts = [hinge_head(r, m) for (r, _), (m, _) in zip(real, made, strict=True)]
    return torch.stack(parts).mean(0)


def generator_loss(real: Judged, made: Judged) -> tuple[Tensor, Tensor]:
    """(the vocoder's side of the hinge, the distance of features), per sample (b,)."""
    fooled = torch.stack([hinge_student(logits) for logits, _ in made]).mean(0)
    near = [
        (a.detach() - b).abs().flatten(1).mean(1)
        for (_, theirs), (_, ours) in zip(real, made, strict=True)
        for a, b in zip(theirs, ours, strict=True)
    ]
    return fooled, torch.stack(near).mean(0)
