"""A residual MLP for small pictures: 8 x 8 digits, where a transformer is slower and no better.

Class labels and time modulate each block (adaptive layer norm with zero-initialised gates, Peebles
& Xie 2022, arXiv 2212.09748, on an MLP-Mixer-free residual block). Called like diffusers'
DiTTransformer2DModel: (hidden_states, timestep, class_labels), timestep in 0..1000.
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

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, -1)
        y = self.norm(x) * (1 + scale) + shift
        return x + gate * self.second(nn.functional.silu(self.first(y)))


class MLPDenoiser(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """(b, channels, size, size) -> the same shape; class `num_classes` means no class.

    two_time adds a second time input and guidance_input the guidance scale, both zero-initialised,
    so that it starts as the network without.
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
    ) -> None:
        super().__init__()
        features = in_channels * sample_size**2
        self.time = nn.Sequential(nn.Linear(WIDTH, width), nn.SiLU(), nn.Linear(width, width))
        self.second_time = nn.Linear(WIDTH, width, bias=False) if two_time else None
        self.guidance = nn.Linear(WIDTH, width, bias=False) if guidance_input else None
        for added in (self.second_time, self.guidance):
            if added is not None:
                nn.init.zeros_(added.weight)
        self.label = nn.Embedding(num_classes + 1, width)
        self.enter = nn.Linear(features, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
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
        x = self.enter(hidden_states.flatten(1))
        for block in self.blocks:
            x = block(x, condition)
        return self.leave(self.norm(x)).view_as(hidden_states)
