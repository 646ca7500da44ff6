"""Speech after CoMoSpeech (arXiv 2305.06908): text encoder, durations, a 1-D decoder of mels.

Faithful: the encoder's means of each sound are the decoder's condition, durations come from
monotonic alignment search and a predictor on detached features, losses of durations and prior, an
EDM-preconditioned denoiser of mels. Not faithful: the decoder is told the encoder's features beside
its means, as sounds of like means are not alike; the search does not look at the encoder
(genkit.networks.alignment) and is done before training; the decoder is a 1-D ConvNeXt instead of a
2-D U-Net (a thirteenth of its cost), mels are normalised to deviation 0.5, noise has mean zero (as
in the authors' own later variant), rotary positions instead of relative ones, no random crops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from genkit.networks.alignment import sounding, spread, whole_durations
from genkit.terms import mean

Conditions = Mapping[str, Tensor]
WIDTH = 128  # of the encoder, and of a voice


def nothing_said(frames: int, bands: int, width: int = WIDTH) -> dict[str, Tensor]:
    """What a decoder is told, batch 1, where neither text nor voice is: of guidance the one half.
    How long a sound is stays known. width: the encoder's."""
    return {"text": torch.zeros(1, frames, bands + width), "voice": torch.zeros(1, width)}


def _rotated(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) of (b, heads, l, d)."""
    half = x.shape[-1] // 2
    rate = 10_000 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * rate
    cos, sin = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _convolved(conv: nn.Conv1d, x: Tensor, mask: Tensor) -> Tensor:
    """conv over (b, l, c) whose padding is zero."""
    return conv((x * mask).transpose(1, 2)).transpose(1, 2)


class _Layer(nn.Module):
    """A transformer layer whose feed-forward looks at its neighbours."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up = nn.Conv1d(width, 4 * width, 3, padding=1)
        self.down = nn.Conv1d(4 * width, width, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, length, width = x.shape
        parts = (
            self.qkv(self.norm_1(x)).reshape(b, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        q, k, v = _rotated(parts[0]), _rotated(parts[1]), parts[2]
        seen = mask[:, None, None, :, 0].bool()
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.dropout(self.out(y.transpose(1, 2).reshape(b, length, width)))
        y = F.gelu(_convolved(self.up, self.norm_2(x), mask))
        return x + self.dropout(_convolved(self.down, y, mask))


class SpeechEncoder(ModelMixin, ConfigMixin):
    """Symbols of `genkit.phonemes` as means of mels, features and durations.

    speakers: their names. dictionary: whether words are read by cmudict or by rule alone. silent:
    the symbol that has no frames, which stands between two words.
    """

    @register_to_config
    def __init__(
        self,
        symbols: int,
        speakers: tuple[str, ...] = ("speaker",),
        dictionary: bool = False,
        bands: int = 80,
        width: int = WIDTH,
        layers: int = 4,
        heads: int = 2,
        dropout: float = 0.1,
        silent: int | None = None,
    ) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, width)
        self.speaker = nn.Embedding(len(speakers), width)
        self.enter = nn.Conv1d(width, width, 5, padding=2)
        self.transformer = nn.ModuleList(_Layer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.means = nn.Linear(width, bands)
        self.duration_1 = nn.Conv1d(width, width, 3, padding=1)
        self.duration_2 = nn.Conv1d(width, width, 3, padding=1)
        self.duration_norm_1, self.duration_norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.duration_out = nn.Linear(width, 1)
        nn.init.normal_(self.symbol.weight, std=width**-0.5)
        nn.init.normal_(self.speaker.weight, std=width**-0.5)
        nn.init.constant_(self.duration_out.bias, 1.4)  # four frames, about a sound's length

    def forward(self, tokens: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Symbols (b, l), 0 for padding, and speakers (b,) as text (b, l, bands + width), which is
        means and features, durations in frames (b, l), and the speakers' embeddings (b, width)."""
        mask = (tokens > 0)[..., None].to(self.symbol.weight.dtype)
        voice = self.speaker(speaker)
        x = (self.symbol(tokens) + voice[:, None]) * mask
        x = x + F.gelu(_convolved(self.enter, x, mask))
        for layer in self.transformer:
            x = layer(x, mask)
        x = self.norm(x) * mask
        # The durations learn from the features without bending them (Glow-TTS, sec. 3.3).
        y = F.gelu(self.duration_norm_1(_convolved(self.duration_1, x.detach(), mask)))
        y = F.gelu(self.duration_norm_2(_convolved(self.duration_2, y, mask)))
        heard = sounding(tokens, self.config["silent"])
        durations = self.duration_out(y)[..., 0].float().exp() * heard
        return torch.cat([self.means(x) * mask, x], -1), durations, voice


class _Block(nn.Module):
    """ConvNeXt in one dimension (arXiv 2201.03545), its norm and gate told the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.table = nn.Parameter(torch.zeros(3, width))

    def forward(self, x: Tensor, told: Tensor, mask: Tensor, rows: Tensor | None) -> Tensor:
        shift, scale, gate = (told + self.table)[:, :, None].unbind(1)
        y = self.norm(_convolved(self.mix, x, mask)) * (1 + scale) + shift
        return x + gate * self._each(y, rows)

    def _each(self, y: Tensor, rows: Tensor | None) -> Tensor:
        """The feed-forward of every frame, or of `rows` of all frames alone and 0 elsewhere."""
        if rows is None:
            return self.down(F.gelu(self.up(y)))
        found = self.down(F.gelu(self.up(y.flatten(0, 1).index_select(0, rows))))
        whole = found.new_zeros(y.shape[0] * y.shape[1], y.shape[2])
        return whole.index_copy(0, rows, found).view(y.shape)


def _rows(mask: Tensor) -> Tensor | None:
    """Which of all frames (b, frames) are there, to spare the work of the others (a third and more
    of a batch of sentences); None where all are, or where shapes must not depend on data."""
    if torch.compiler.is_compiling():
        return None
    rows = mask.flatten().nonzero()[:, 0]
    return rows if len(rows) < mask.numel() else None


class SpeechDecoder(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """A bare network F of mels (b, frames, bands) given the noise level, text, voice and mask.

    sample_size: frames of a training sample; any number can be decoded. sigma_data, sigma_min: of
    the EDM preconditioning around it, which `genkit.denoisers.calls` does.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 80,
        sample_size: int = 256,
        width: int = 256,
        depth: int = 8,
        voice_width: int = WIDTH,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(2 * in_channels + voice_width, width)
        self.time = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width))
        self.voice = nn.Linear(voice_width, width)
        self.modulation = nn.Linear(width, 3 * width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, in_channels)
        for zero in (self.modulation, self.leave):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def forward(
        self, x: Tensor, noise_level: Tensor, text: Tensor, voice: Tensor, mask: Tensor
    ) -> Tensor:
        """x (b, frames, bands), noise_level (b,) = log(sigma) / 4, text (b, frames, c) as the
        encoder reads it, voice (b, width), mask (b, frames) of the frames that are there."""
        seen = mask[..., None].to(x.dtype)
        # log(sigma) / 4 lies in [-1.6, 1.1]: the embedding's periods are made for 0..1000.
        level = get_timestep_embedding(noise_level * 100, 128, flip_sin_to_cos=True)
        condition = F.silu(self.time(level.to(x.dtype)) + self.voice(voice))
        told = self.modulation(condition).unflatten(-1, (3, -1))
        y, rows = self.enter(torch.cat([x, text], -1)), _rows(mask)
        for block in self.blocks:
            y = block(y, told, seen, rows)
        return self.leave(self.norm(y)) * seen


class SpeechNetwork(nn.Module):
    """Encoder and decoder as one module that trains them together; its parts leave for a
    pipeline."""

    def __init__(self, text_encoder: SpeechEncoder, network: SpeechDecoder) -> None:
        super().__init__()
        self.text_encoder, self.network = text_encoder, network

    @property
    def config(self) -> Any:
        """The decoder's."""
        return self.network.config

    def register_to_config(self, **changes: Any) -> None:
        """Change the decoder's."""
        self.network.register_to_config(**changes)

    def condition(
        self, cond: Conditions, x_0: Tensor | None, mask: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """{"tokens", "speaker"} as what the decoder takes, and the encoder's own losses per sample.

        Given mels x_0 (b, frames, bands) and their mask (b, frames), durations are
        cond["durations"] (b, l) (`sound_durations`); else the predicted ones, cut at the decoder's
        sample_size.
        """
        text, predicted, voice = self.text_encoder(cond["tokens"], cond["speaker"])
        if x_0 is None:
            frames = int(self.network.config["sample_size"])
            laid, real = spread(text, whole_durations(predicted), frames)
            return {"text": laid, "voice": voice, "mask": real}, {}
        assert mask is not None, "mels come with a mask of the frames that are there"
        durations = cond["durations"]
        laid, real = spread(text, durations, x_0.shape[1])
        # Where there are no frames nothing is to be learnt, and the logarithm must not see a 0.
        error = (predicted.clamp(min=1e-6).log() - durations.clamp(min=1).log()).square()
        losses = {
            "duration": mean(error, durations > 0),
            "prior": mean(0.5 * (laid[..., : x_0.shape[-1]] - x_0).square(), mask),
        }
        return {"text": laid, "voice": voice, "mask": real}, losses
