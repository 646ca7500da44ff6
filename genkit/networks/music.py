"""A linear-attention diffusion transformer of music latents, of any length.

After SANA (arXiv 2410.10629, sec. 2.3: ReLU linear attention, a depthwise convolution in the gated
feed-forward) in one dimension, as ACE-Step (arXiv 2506.00045) has it, with adaptive norms shared by
the blocks. Not faithful: attention sums over a frame's own window of `window` frames and the two
beside it, so that any frame of a long piece attends to as much as it did in training; rotary
positions (arXiv 2104.09864, eq. 19) tell distances alone; text, tempo, key and instrument are one
vector that modulates the blocks instead of cross-attention; chords, beats and sections come with
every frame (genkit.harmony).
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from genkit.harmony import KEYS, WIDTH
from genkit.networks.text import PromptedNetwork

EMBEDDED = 128  # of a number as sines and cosines
LONGEST_PERIOD = 1_000.0  # frames, of the rotary positions


def _rotated(x: Tensor) -> Tensor:
    """Rotary positions of (b, heads, f, d)."""
    half = x.shape[-1] // 2
    rate = LONGEST_PERIOD ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * rate
    cos, sin = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _neighbours(x: Tensor) -> Tensor:
    """Each window's x (b, heads, windows, ...) and those of the windows beside it, summed."""
    none = torch.zeros_like(x[:, :, :1])
    return x + torch.cat([x[:, :, 1:], none], 2) + torch.cat([none, x[:, :, :-1]], 2)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """ReLU linear attention (b, heads, f, d): frames of a window of `window`, and of the windows
    beside it, weighted by relu(q) . relu(k), with rotary positions above the line alone."""
    b, heads, frames, d = q.shape
    missing = -frames % window
    q, k = F.relu(q), F.relu(k)
    # Padded frames have k = 0 and weigh nothing.
    parts = [F.pad(x, (0, 0, 0, missing)) for x in (q, k, _rotated(q), _rotated(k), v)]
    shape = (b, heads, -1, window, d)
    q, k, far_q, far_k, v = (x.reshape(shape) for x in parts)
    # Summed over the frames of a few windows: a mean keeps half precision in its range.
    states = _neighbours(far_k.transpose(-1, -2) @ v / window)
    weights = _neighbours(k.mean(-2, keepdim=True))
    total = (q * weights).sum(-1, keepdim=True) + 1e-4
    return (far_q @ states / total).reshape(b, heads, -1, d)[:, :, :frames]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm_1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_q, self.norm_k = (nn.RMSNorm(width // heads) for _ in range(2))
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.local = nn.Conv1d(2 * hidden, 2 * hidden, 5, padding=2, groups=2 * hidden)
        self.table = nn.Parameter(torch.zeros(6, width))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (told + self.table)[:, :, None].unbind(
            1
        )
        y = self.qkv(self.norm_1(x) * (1 + scale_1) + shift_1)
        q, k, v = y.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = linear_attention(self.norm_q(q), self.norm_k(k), v, self.window)
        x = x + gate_1 * self.out(y.transpose(1, 2).flatten(2))
        y = self.up(self.norm_2(x) * (1 + scale_2) + shift_2)
        value, gate = self.local(y.transpose(1, 2)).transpose(1, 2).chunk(2, -1)
        return x + gate_2 * self.down(value * F.silu(gate))


class MusicTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """The velocity of latents x (b, frames, channels) on a rectified flow.

    sample_size: frames of a training sample; any number can be made. instruments: their names; the
    number after the last means none, as the key len(KEYS), bpm 0 and a plan of zeros do.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 32,
        sample_size: int = 192,
        instruments: tuple[str, ...] = (),
        width: int = 256,
        depth: int = 6,
        heads: int = 8,
        hidden: int = 512,
        window: int = 96,
        text_width: int = 128,
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(in_channels + WIDTH, width)
        self.time = nn.Sequential(nn.Linear(EMBEDDED, width), nn.SiLU(), nn.Linear(width, width))
        self.text, self.tempo = nn.Linear(text_width, width), nn.Linear(EMBEDDED, width)
        self.key = nn.Embedding(len(KEYS) + 1, width)
        self.instrument = nn.Embedding(len(instruments) + 1, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(_Block(width, heads, hidden, window) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, in_channels)
        for table in (self.key, self.instrument):
            nn.init.normal_(table.weight, std=0.1)
        for zero in (self.modulation, self.final, self.leave):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Tensor,
        bpm: Tensor,
        key: Tensor,
        instrument: Tensor,
        plan: Tensor,
    ) -> Tensor:
        """x (b, frames, channels), timestep (b,) in 0..1000, text (b, l, text_width), bpm, key and
        instrument (b,), plan (b, frames, WIDTH)."""
        level = get_timestep_embedding(timestep, EMBEDDED, flip_sin_to_cos=True).to(x.dtype)
        # In octaves of tempo, so that its periods tell 1% from nothing.
        octave = 100 * (bpm.clamp(min=1) / 60).log2()
        tempo = get_timestep_embedding(octave, EMBEDDED, flip_sin_to_cos=True).to(x.dtype)
        tempo = tempo * (bpm > 0)[:, None].to(x.dtype)
        condition = self.time(level) + self.text(text.mean(1)) + self.tempo(tempo)
        condition = F.silu(condition + self.key(key) + self.instrument(instrument))
        told = self.modulation(condition).unflatten(-1, (6, -1))
        y = self.enter(torch.cat([x, plan.to(x.dtype)], -1))
        for block in self.blocks:
            y = block(y, told)
        shift, scale = self.final(condition)[:, None].chunk(2, -1)
        return self.leave(self.norm(y) * (1 + scale) + shift)


class TaggedNetwork(PromptedNetwork):
    """A text encoder and a MusicTransformer as one module that trains them together."""

    def forward(self, x: Tensor, timestep: Tensor, tokens: Tensor, **told: Any) -> Tensor:
        return self.network(x, timestep, self.embed(tokens), **told)
