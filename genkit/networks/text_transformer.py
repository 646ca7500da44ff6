"""PixArt's transformer with two more inputs, for students of genkit's text-to-image teachers.

Chen et al. 2023 (arXiv 2310.00426), as diffusers has it; the second time (mean velocities) and the
guidance scale are added to the embedding of the first time, which modulates every block, through
zero-initialised weights. Everything else, names of weights included, is the parent's.
"""

from __future__ import annotations

from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormSingle
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor, nn

from genkit.networks.embeddings import WIDTH, embedded_scale, embedded_time

__all__ = ["ModelMixin", "TextTransformer"]  # ModelMixin: diffusers looks for it where a class is

OURS = ("two_time", "guidance_input")


class _Modulation(AdaLayerNormSingle):
    """PixArt's embedding of time and size, and what the further inputs add to it."""

    def __init__(self, width: int, sized: bool, two_time: bool, guidance_input: bool) -> None:
        super().__init__(width, sized)
        self.second_time = nn.Linear(WIDTH, width, bias=False) if two_time else None
        self.guidance = nn.Linear(WIDTH, width, bias=False) if guidance_input else None
        for added in (self.second_time, self.guidance):
            if added is not None:
                nn.init.zeros_(added.weight)

    def forward(
        self,
        timestep: Tensor,
        added_cond_kwargs: Any = None,
        batch_size: int | None = None,
        hidden_dtype: Any = None,
    ) -> Any:
        given = dict(added_cond_kwargs or {})
        second, scale = given.pop("second_timestep", None), given.pop("guidance", None)
        size = {name: given.get(name) for name in ("resolution", "aspect_ratio")}
        embedded = self.emb(timestep, **size, batch_size=batch_size, hidden_dtype=hidden_dtype)
        if self.second_time is not None:
            assert second is not None, "a two-time network takes a second_timestep"
            apart = embedded_time(timestep, embedded.dtype) - embedded_time(second, embedded.dtype)
            embedded = embedded + self.second_time(apart)
        if self.guidance is not None:
            assert scale is not None, "this network takes the guidance scale"
            embedded = embedded + self.guidance(embedded_scale(scale, embedded.dtype))
        return self.linear(self.silu(embedded)), embedded


class TextTransformer(PixArtTransformer2DModel):
    """As PixArtTransformer2DModel; two_time and guidance_input say which inputs it has besides."""

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int | None = 8,
        num_layers: int = 28,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        cross_attention_dim: int | None = 1152,
        attention_bias: bool = True,
        sample_size: int = 128,
        patch_size: int = 2,
        activation_fn: str = "gelu-approximate",
        num_embeds_ada_norm: int | None = 1000,
        upcast_attention: bool = False,
        norm_type: str = "ada_norm_single",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-6,
        interpolation_scale: int | None = None,
        use_additional_conditions: bool | None = None,
        caption_channels: int | None = None,
        attention_type: str | None = "default",
        two_time: bool = False,
        guidance_input: bool = False,
    ) -> None:
        # The decorator has put every argument into the config already.
        own = {k: v for k, v in self.config.items() if k not in OURS and not k.startswith("_")}
        super().__init__(**own)
        sized = self.use_additional_conditions
        self.adaln_single = _Modulation(self.inner_dim, sized, two_time, guidance_input)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: Any = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        second_timestep: Tensor | None = None,
        guidance: Tensor | None = None,
        **others: Any,
    ) -> Any:
        """As the parent's; second_timestep (b,) in 0..1000, guidance (b,) scales."""
        given: dict[str, Any] = dict(added_cond_kwargs or {})
        given |= {"second_timestep": second_timestep, "guidance": guidance}
        return super().forward(hidden_states, encoder_hidden_states, timestep, given, **others)
