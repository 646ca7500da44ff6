"""A residual MLP for small pictures: 8 x 8 digits, where a transformer is slower and no better.

Class labels and time modulate each block (adaptive layer norm with zero-initialised gates, Peebles
& Xie 2022, arXiv 2212.09748, on an MLP-Mixer-free residual block). Called like diffusers'
DiTTransformer2DModel: (hidden_states, timestep, class_labels), timestep in 0..1000.
Larger pictures, whose pixels a few hundred features cannot hold, are cut into patches, and an MLP
over them takes turns with one over features (MLP-Mixer, Tolstikhin et al. 2021, arXiv 2105.01601).
"""

from __future__ import annotations

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from genkit.networks.embeddings import WIDTH, embedded_scale, embedded_time


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, transposed: bool = False) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, -1)
        y = self.norm(x) * (1 + scale) + shift
        y = y.mT if transposed else y
        y = self.second(nn.functional.silu(self.first(y)))
        return x + gate * (y.mT if transposed else y)


class _MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.across = _Block(width)
        self.across.first = nn.Linear(tokens, tokens)
        self.across.second = nn.Linear(tokens, tokens)
        self.within = _Block(width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        each = condition[:, None]
        return self.within(self.across(x, each, transposed=True), each)


class MLPDenoiser(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """(b, channels, size, size) -> the same shape; class `num_classes` means no class.

    two_time adds a second time input and guidance_input the guidance scale, both zero-initialised,
    so that it starts as the network without.
    patch: side of the patches that pictures are cut into; by default they are one.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 1,
        sample_size: int = 8,
        width: int = 256,
        depth: int = 4,
        num_classes: int = 10,
        two_time: bool = False,
        guidance_input: bool = False,
        patch: int | None = None,
    ) -> None:
        super().__init__()
        side = patch or sample_size
        features, tokens = in_channels * side**2, (sample_size // side) ** 2
        self.time = nn.Sequential(nn.Linear(WIDTH, width), nn.SiLU(), nn.Linear(width, width))
        self.second_time = nn.Linear(WIDTH, width, bias=False) if two_time else None
        self.guidance = nn.Linear(WIDTH, width, bias=False) if guidance_input else None
        for added in (self.second_time, self.guidance):
            if added is not None:
                nn.init.zeros_(added.weight)
        self.label = nn.Embedding(num_classes + 1, width)
        self.enter = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            _MixerBlock(tokens, width) if patch else _Block(width) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, features)
        nn.init.normal_(self.label.weight, std=0.5)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        class_labels: Tensor,
        second_timestep: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (b, c, h, w), timestep (b,) in 0..1000, class_labels (b,) int64, guidance
        (b,) scales."""
        dtype = self.enter.weight.dtype
        time = embedded_time(timestep, dtype)
        condition = self.time(time) + self.label(class_labels)
        if self.second_time is not None:
            assert second_timestep is not None, "a two-time network takes a second_timestep"
            condition = condition + self.second_time(time - embedded_time(second_timestep, dtype))
        if self.guidance is not None:
            assert guidance is not None, "this network takes the guidance scale"
            condition = condition + self.guidance(embedded_scale(guidance, dtype))
        condition = nn.functional.silu(condition)
        patch = self.config["patch"]
        x = self.enter(_patches(hidden_states, patch) if patch else hidden_states.flatten(1))
        for block in self.blocks:
            x = block(x, condition)
        x = self.leave(self.norm(x))
        return _picture(x, hidden_states, patch) if patch else x.view_as(hidden_states)


def _patches(x: Tensor, side: int) -> Tensor:
    """(b, c, h, w) as (b, patches, c * side^2)."""
    b, c, h, w = x.shape
    cut = x.reshape(b, c, h // side, side, w // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * side * side)


def _picture(patches: Tensor, like: Tensor, side: int) -> Tensor:
    """The inverse of `_patches`, of the shape of `like`."""
    b, c, h, w = like.shape
    cut = patches.reshape(b, h // side, w // side, c, side, side)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)
