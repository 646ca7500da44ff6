"""A small vocoder: mels to samples by ConvNeXt blocks and an inverse Fourier head.

After Vocos (Siuzdak 2023, arXiv 2306.00814): magnitude exp(m) and phase p per bin and frame,
overlap-added. Not faithful: no padding anywhere, a mel comes with `context` frames on either side,
so that a clip decoded in windows is the clip decoded whole; GELU blocks are smaller; discriminators
are in `genkit.networks.discriminators`.
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

from genkit.audio.spectra import SPEECH, overlap_add

KERNEL, EDGE = 7, 2  # EDGE: frames on either side whose windows reach into a frame's samples
LOUDEST = 1e2  # of a bin's magnitude, as Vocos clips it


class Block(nn.Module):
    """ConvNeXt in one dimension without padding: KERNEL // 2 frames fewer on either side."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, KERNEL, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1 / depth))

    def forward(self, x: Tensor) -> Tensor:
        cut = KERNEL // 2
        y = self.norm(self.mix(x.transpose(1, 2)).transpose(1, 2))
        return x[:, cut:-cut] + self.scale * self.down(F.gelu(self.up(y)))


def inverse_fourier(y: Tensor, hann: Tensor, hop: int, beyond: int) -> Tensor:
    """Log-magnitudes and phases y (b, frames, n_fft + 2) of frames every `hop` samples, under the
    window hann (n_fft,), as samples, those of the first `beyond` frames left out."""
    n_fft = len(hann)
    magnitude, phase = y.chunk(2, -1)
    spectra = torch.polar(magnitude.exp().clamp(max=LOUDEST).float(), phase.float())
    # Hann windows of a quarter's hop, applied twice, add up to 3/2 everywhere.
    waves = torch.fft.irfft(spectra, n_fft) * hann / (1.5 * n_fft / (4 * hop))
    return overlap_add(waves, hop)[:, beyond * hop + (n_fft - hop) // 2 :]


class Vocoder(ModelMixin, ConfigMixin):
    """Normalised log-mels of `genkit.audio.spectra.SPEECH` as samples.

    window: frames that are decoded at once; a clip's windows begin at its beginning, whoever asks,
    so that a stream is bit for bit the whole.
    """

    @register_to_config
    def __init__(
        self,
        bands: int = 80,
        width: int = 192,
        depth: int = 6,
        n_fft: int = 1024,
        hop: int = 256,
        sample_rate: int = 16_000,
        window: int = 128,
    ) -> None:
        super().__init__()
        self.enter = nn.Conv1d(bands, width, KERNEL)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, depth) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)
        self.leave = nn.Linear(width, n_fft + 2)
        self.register_buffer("hann", torch.hann_window(n_fft), persistent=False)

    @property
    def context(self) -> int:
        """Frames of mel that a window needs on either side of it."""
        return EDGE + KERNEL // 2 * (len(self.blocks) + 1)

    def forward(self, mels: Tensor) -> Tensor:
        """Mels (b, frames + 2 context, bands) as samples (b, frames hop)."""
        hop = self.config["hop"]
        frames = mels.shape[1] - 2 * self.context
        x = self.norm_in(self.enter(mels.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        y = self.leave(self.norm_out(x))
        return inverse_fourier(y, self.hann, hop, EDGE)[:, : frames * hop]

    @property
    def samples_per_frame(self) -> int:
        """Samples of a frame."""
        return self.config["hop"]

    @property
    def outside(self) -> Tensor:
        """A frame of what is before and after a clip: silence."""
        return torch.full((self.config["bands"],), SPEECH.silence, device=self.hann.device)

    def decode(self, mels: Tensor) -> Tensor:
        """Whole mels (b, frames, bands), with silence around them, as samples (b, frames hop)."""
        around = F.pad(mels, (0, 0, self.context, self.context), value=SPEECH.silence)
        return self(around)


def open_vocoder(folder: str | FilePath) -> Vocoder:
    """A saved vocoder; ValueError for a folder that holds none, or one for other mels."""
    file = FilePath(folder) / "config.json"
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no vocoder ({error})") from error
    if held.get("_class_name") != "Vocoder":
        raise ValueError(f"{folder} holds a {held.get('_class_name')}, no Vocoder")
    made: Any = Vocoder.from_pretrained(str(folder), use_safetensors=True)
    wanted = {name: getattr(SPEECH, name) for name in ("bands", "n_fft", "hop", "sample_rate")}
    if any(made.config[name] != value for name, value in wanted.items()):
        raise ValueError(f"the vocoder in {folder} was made for other mels than genkit's")
    return made
