"""Tiny transformers with random weights, one of each family, and dense attention under a mask.

The mask is made from coordinates alone, pair by pair, and goes into torch's own attention below
diffusers' own processors: nothing of what is tested takes part.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

Mask = Callable[[tuple[int, ...], tuple[int, ...], tuple[int, ...]], bool]


@dataclass(frozen=True)
class Toy:
    """A transformer, what it is called with, its grid and the text beside it."""

    make: Callable[[], Any]
    inputs: Callable[[torch.Generator], dict[str, Any]]
    grid: tuple[int, ...]
    group: tuple[int, ...]
    text: int = 0
    text_first: bool = False
    layers: int = 2
    noise: float = 1000.0

    def net(self) -> Any:
        """The transformer; all weights random, those that begin at zero too."""
        torch.manual_seed(0)
        net = self.make().eval()
        for parameter in net.parameters():
            std = 1 / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 0.3
            torch.nn.init.normal_(parameter, std=1.3 * std)
        return net

    def given(self, **changed: Any) -> dict[str, Any]:
        """Arguments of a call with a batch of 2."""
        return self.inputs(torch.Generator().manual_seed(1)) | {"return_dict": False} | changed


def noise(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng)


def flux() -> Any:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=12, pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def flux_inputs(rng: torch.Generator) -> dict[str, Any]:
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(9), indexing="ij")
    ids = torch.stack([torch.zeros(54), rows.flatten(), columns.flatten()], 1)
    return {
        "hidden_states": noise(rng, 2, 54, 4), "encoder_hidden_states": noise(rng, 2, 5, 12),
        "pooled_projections": noise(rng, 2, 8), "timestep": torch.tensor([0.3, 0.9]),
        "img_ids": ids, "txt_ids": torch.zeros(5, 3),
    }  # fmt: skip


def sd3() -> Any:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=16,
        pooled_projection_dim=8, out_channels=4, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip


def sd3_inputs(rng: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": noise(rng, 2, 4, 12, 18), "encoder_hidden_states": noise(rng, 2, 5, 12),
        "pooled_projections": noise(rng, 2, 8), "timestep": torch.tensor([300.0, 900.0]),
    }  # fmt: skip


def pixart() -> Any:
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
        attention_head_dim=16, num_attention_heads=2, cross_attention_dim=32, caption_channels=12,
        norm_num_groups=4, use_additional_conditions=False,
    )  # fmt: skip


def pixart_inputs(rng: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": noise(rng, 2, 4, 12, 18), "encoder_hidden_states": noise(rng, 2, 5, 12),
        "timestep": torch.tensor([300, 900]), "added_cond_kwargs": {},
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
    }  # fmt: skip


def hunyuan() -> Any:
    from diffusers import HunyuanVideoTransformer3DModel

    return HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=2, patch_size_t=1,
        text_embed_dim=12, pooled_projection_dim=8, rope_axes_dim=(4, 4, 8), guidance_embeds=False,
    )  # fmt: skip


def hunyuan_inputs(rng: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": noise(rng, 2, 4, 3, 8, 10), "encoder_hidden_states": noise(rng, 2, 5, 12),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
        "pooled_projections": noise(rng, 2, 8), "timestep": torch.tensor([300.0, 900.0]),
    }  # fmt: skip


def wan() -> Any:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=12, freq_dim=16, ffn_dim=32, num_layers=2, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
    )  # fmt: skip


def wan_inputs(rng: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": noise(rng, 2, 4, 3, 8, 10), "encoder_hidden_states": noise(rng, 2, 5, 12),
        "timestep": torch.tensor([300.0, 900.0]),
    }  # fmt: skip


def ltx() -> Any:
    from diffusers import LTXVideoTransformer3DModel

    return LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16,
        cross_attention_dim=32, num_layers=2, caption_channels=12,
    )  # fmt: skip


def ltx_inputs(rng: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": noise(rng, 2, 60, 8), "encoder_hidden_states": noise(rng, 2, 5, 12),
        "timestep": torch.tensor([300.0, 900.0]), "num_frames": 3, "height": 4, "width": 5,
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
    }  # fmt: skip


TOYS = {
    "FluxTransformer2DModel": Toy(flux, flux_inputs, (6, 9), (2, 2), 5, True, noise=1.0),
    "SD3Transformer2DModel": Toy(sd3, sd3_inputs, (6, 9), (2, 2), 5),
    "PixArtTransformer2DModel": Toy(pixart, pixart_inputs, (6, 9), (2, 2)),
    "HunyuanVideoTransformer3DModel": Toy(hunyuan, hunyuan_inputs, (3, 4, 5), (1, 2, 1), 5),
    "WanTransformer3DModel": Toy(wan, wan_inputs, (3, 4, 5), (1, 2, 1)),
    "LTXVideoTransformer3DModel": Toy(ltx, ltx_inputs, (3, 4, 5), (1, 2, 1)),
}


# ---- What is seen, pair by pair ---------------------------------------------------------------


def surrounds(query: tuple[int, ...], key: tuple[int, ...], counts: tuple[int, ...]) -> bool:
    """Groups at most one away from the query's, the window of three moved inside the grid."""
    for q, k, n in zip(query, key, counts, strict=True):
        first = min(max(q - 1, 0), max(n - 3, 0))
        if not first <= k < first + 3:
            return False
    return True


def crosses(query: tuple[int, ...], key: tuple[int, ...], counts: tuple[int, ...]) -> bool:
    """Groups that share an index."""
    return any(q == k for q, k in zip(query, key, strict=True))


def mask(toy: Toy, sees: Mask, text: int) -> Tensor:
    """(tokens, tokens), True where a query may see a key."""
    counts = tuple(-(-n // g) for n, g in zip(toy.grid, toy.group, strict=True))
    places = list(product(*(range(n) for n in toy.grid)))
    groups = [tuple(i // g for i, g in zip(at, toy.group, strict=True)) for at in places]
    grid = torch.tensor([[sees(q, k, counts) for k in groups] for q in groups])
    seen = torch.ones(len(places) + text, len(places) + text, dtype=torch.bool)
    inside = slice(text, None) if toy.text_first else slice(len(places))
    seen[inside, inside] = grid
    return seen


@contextmanager
def masked(toy: Toy, sees: Mask) -> Iterator[None]:
    """Inside, torch's attention over a toy's tokens is dense attention under the mask."""
    image = math.prod(toy.grid)
    masks = {image + text: mask(toy, sees, text) for text in {0, toy.text}}
    attention = F.scaled_dot_product_attention

    def patched(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **rest: Any):
        if query.shape[2] == key.shape[2] and query.shape[2] in masks:
            seen = masks[query.shape[2]]
            attn_mask = seen if attn_mask is None else seen & attn_mask
        return attention(query, key, value, attn_mask=attn_mask, **rest)

    with patch.object(F, "scaled_dot_product_attention", patched):
        yield
