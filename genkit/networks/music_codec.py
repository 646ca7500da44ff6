"""A small autoencoder of music: 21.5 latents a second, decoded by an inverse Fourier head.

Encoder: magnitudes on a grid that keeps semitones apart (every bin of a 93 ms window below 1.5 kHz,
mel bands above), four frames a latent, ConvNeXt blocks (arXiv 2201.03545), mean and variance as a
variational autoencoder's (Kingma & Welling 2013, arXiv 1312.6114). Decoder: blocks at the latents'
rate, twice as many frames, more blocks, and Vocos' head (arXiv 2306.00814). No convolution pads: a
stretch of latents comes with `context` latents on either side, so that music decoded in windows is
music decoded whole. Latents leave normalised, mean 0 and deviation 1 in each channel.
"""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from genkit.audio.spectra import mel_filters, stft
from genkit.networks.vocoder import EDGE, KERNEL, Block, inverse_fourier

RATE, N_FFT, HOP = 22_050, 2048, 512  # of the decoder's head; a latent is two of its frames
FINE = 256  # hop of the encoder's frames, four of which make a latent
LATENT = 2 * HOP  # samples of a latent
LOWEST, SPLIT, ABOVE = 3, 140, 56  # bins that are kept one by one, and mel bands above them
FLOOR, MIDDLE, SPREAD = 1e-3, -1.0, 4.0  # of magnitudes; their logarithm's about -1 +- 2
CUT = KERNEL // 2  # frames that a block loses on either side


def bands(audio: Tensor) -> Tensor:
    """Samples (b, n LATENT) as what the encoder sees, (b, n, 4 bands)."""
    magnitude = stft(audio, N_FFT, FINE).abs()
    high = SPLIT * RATE / N_FFT
    mels = mel_filters(RATE, N_FFT, ABOVE, high, RATE / 2).to(magnitude)
    # Slaney's triangles have equal area; here each band is to be as loud as its loudest bin.
    mels = mels / mels.sum(0, keepdim=True).clamp(min=1e-8) * 4
    both = torch.cat([magnitude[..., LOWEST:SPLIT], magnitude @ mels], -1)
    return ((both.clamp(min=FLOOR).log() - MIDDLE) / SPREAD).unflatten(1, (-1, 4)).flatten(2)


class MusicCodec(ModelMixin, ConfigMixin):
    """Mono sound at RATE as latents (b, frames, channels), and back.

    window: latents that are decoded at once; a piece's windows begin at its beginning, whoever
    asks, so that a stream is bit for bit the whole.
    """

    @register_to_config
    def __init__(
        self,
        channels: int = 32,
        width: int = 192,
        encoder_depth: int = 4,
        low_width: int = 256,
        low_depth: int = 2,
        depth: int = 5,
        window: int = 128,
    ) -> None:
        super().__init__()
        self.encoder_in = nn.Linear(4 * (SPLIT - LOWEST + ABOVE), width)
        self.encoder = nn.ModuleList(Block(width, encoder_depth) for _ in range(encoder_depth))
        self.encoder_norm = nn.LayerNorm(width)
        self.encoder_out = nn.Linear(width, 2 * channels)
        self.enter = nn.Conv1d(channels, low_width, KERNEL)
        self.norm_in = nn.LayerNorm(low_width)
        self.low = nn.ModuleList(Block(low_width, low_depth) for _ in range(low_depth))
        self.twice = nn.Linear(low_width, 2 * width)
        self.high = nn.ModuleList(Block(width, depth) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)
        self.leave = nn.Linear(width, N_FFT + 2)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.register_buffer("outside", torch.zeros(channels))
        self.register_buffer("hann", torch.hann_window(N_FFT), persistent=False)

    @property
    def context(self) -> int:
        """Latents that a window needs on either side of it."""
        return CUT * (len(self.low) + 1) + self._around

    @property
    def _around(self) -> int:
        """Latents on either side that the blocks of the doubled rate and the head use up."""
        return -(-(CUT * len(self.high) + EDGE) // 2)

    @property
    def samples_per_frame(self) -> int:
        """Samples of a latent."""
        return LATENT

    @property
    def sample_rate(self) -> int:
        """Of the sound, in Hz."""
        return RATE

    def posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (b, n) as mean and log-variance (b, ceil(n / LATENT), channels), silence being
        around them; as trained, not normalised."""
        around = CUT * len(self.encoder) * LATENT
        padded = F.pad(audio, (around, around + -audio.shape[-1] % LATENT))
        x = self.encoder_in(bands(padded))
        for block in self.encoder:
            x = block(x)
        mean, log_variance = self.encoder_out(self.encoder_norm(x)).chunk(2, -1)
        return mean, log_variance.clamp(-12, 4)

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Samples (b, n) as normalised latents (b, ceil(n / LATENT), channels)."""
        return (self.posterior(audio)[0] - self.mean) / self.deviation

    def synthesise(self, latents: Tensor) -> Tensor:
        """Latents as trained (b, frames + 2 context, channels) as samples (b, frames LATENT)."""
        frames = latents.shape[1] - 2 * self.context
        x = self.norm_in(self.enter(latents.transpose(1, 2)).transpose(1, 2))
        for block in self.low:
            x = block(x)
        x = self.twice(x).unflatten(-1, (2, -1)).flatten(1, 2)
        for block in self.high:
            x = block(x)
        # What is left beyond the frames on either side: EDGE, and one more where that is odd.
        beyond = (x.shape[1] - 2 * frames) // 2
        y = self.leave(self.norm_out(x))
        return inverse_fourier(y, self.hann, HOP, beyond)[:, : frames * LATENT]

    def forward(self, latents: Tensor) -> Tensor:
        """Normalised latents (b, frames + 2 context, channels) as samples (b, frames LATENT)."""
        return self.synthesise(latents * self.deviation + self.mean)

    def decode(self, latents: Tensor) -> Tensor:
        """Whole pieces (b, frames, channels), with silence around them, as samples."""
        around = self.outside.expand(len(latents), self.context, -1)
        return self(torch.cat([around, latents, around], 1))

    @torch.no_grad()
    def settle(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the statistics (channels,) of the latents of music, by which they are normalised,
        and the latent of silence, which is what lies outside a piece."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp(min=1e-3))
        silence = torch.zeros(1, LATENT * 4, device=self.mean.device)
        self.outside.copy_(self.encode(silence)[0, 2])


def open_codec(folder: str | FilePath) -> MusicCodec:
    """A saved codec; ValueError for a folder that holds none."""
    file = FilePath(folder) / "config.json"
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no codec of music ({error})") from error
    if held.get("_class_name") != "MusicCodec":
        raise ValueError(f"{folder} holds a {held.get('_class_name')}, no MusicCodec")
    made: Any = MusicCodec.from_pretrained(str(folder), use_safetensors=True)
    return made.eval()
