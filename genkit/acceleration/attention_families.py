"""Transformers of diffusers that take grouped attention: one row each.

A row says where the self attention over the grid of latents stands, how its tokens are ordered, and
how to read the grid off a call. Cross attention and the refiners of prompts are in no row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genkit_kernels.layout import Side

Given = Mapping[str, Any]  # what a transformer's forward was called with, by name


@dataclass(frozen=True)
class Family:
    """One class of transformers.

    blocks: lists of blocks in the order they run, and the names of the self attentions in a block.
    processors: classes of diffusers' processors that may be there. text_side: where the text stands
    among the tokens of joint attention; "none": it is met in cross attention alone. noise: the
    timestep of pure noise. grid: (transformer, arguments) to (rows, columns), or frames before.
    """

    blocks: Mapping[str, tuple[str, ...]]
    processors: tuple[str, ...]
    axes: int
    text_side: Side
    noise: float
    grid: Callable[[Any, Given], tuple[int, ...]]

    def text_len(self, given: Given) -> int:
        """Text tokens in joint attention, padding counted."""
        return 0 if self.text_side == "none" else given["encoder_hidden_states"].shape[1]

    def times(self, given: Given) -> Tensor:
        """Each row's time (batch,), 1 at pure noise; the noisiest where tokens have their own."""
        batch = len(given["hidden_states"])
        t = torch.as_tensor(given["timestep"]).detach().float().cpu() / self.noise
        return t.expand(batch) if t.numel() == 1 else t.reshape(batch, -1).amax(1)


def of_picture(transformer: Any, given: Given) -> tuple[int, ...]:
    """Latents (b, c, height, width) in square patches."""
    patch = transformer.config.patch_size
    return tuple(n // patch for n in given["hidden_states"].shape[2:])


def of_positions(transformer: Any, given: Given) -> tuple[int, ...]:
    """Packed latents (b, tokens, c) whose positions (tokens, 3) run through rows and columns."""
    ids = given["img_ids"]
    ids = ids[0] if ids.ndim == 3 else ids
    columns = int((ids[:, 1] == ids[0, 1]).sum())
    rows = len(ids) // columns
    if rows * columns == len(ids) == given["hidden_states"].shape[1]:
        frame, row, column = ids.view(rows, columns, -1).unbind(-1)
        if (
            (frame == frame[0, 0]).all()
            and (row == row[:, :1]).all()
            and (column == column[0]).all()
        ):
            return rows, columns
    raise ValueError(
        f"img_ids {tuple(ids.shape)} do not run row by row through one grid of the "
        f"{given['hidden_states'].shape[1]} tokens of hidden_states; pictures beside the one that "
        "is made are not supported"
    )


def of_sizes(transformer: Any, given: Given) -> tuple[int, ...]:
    """Packed latents (b, tokens, c) with num_frames, height and width beside them."""
    frames, height, width = (given.get(name) or 0 for name in ("num_frames", "height", "width"))
    tokens = given["hidden_states"].shape[1]
    if frames * height * width != tokens:
        raise ValueError(
            f"num_frames, height and width are {frames, height, width}; groups are cut from that "
            f"grid, so their product must be the {tokens} tokens of hidden_states"
        )
    return frames, height, width


def of_hunyuan(transformer: Any, given: Given) -> tuple[int, ...]:
    """Latents (b, c, frames, height, width); frames have their own patch."""
    frames, height, width = given["hidden_states"].shape[2:]
    patch = transformer.config.patch_size
    return frames // transformer.config.patch_size_t, height // patch, width // patch


def of_video(transformer: Any, given: Given) -> tuple[int, ...]:
    """Latents (b, c, frames, height, width), a patch for each axis."""
    sizes = given["hidden_states"].shape[2:]
    return tuple(n // p for n, p in zip(sizes, transformer.config.patch_size, strict=True))


FAMILIES: dict[str, Family] = {
    "FluxTransformer2DModel": Family(
        blocks={"transformer_blocks": ("attn",), "single_transformer_blocks": ("attn",)},
        processors=("FluxAttnProcessor",),
        axes=2,
        text_side="first",
        noise=1.0,
        grid=of_positions,
    ),
    "SD3Transformer2DModel": Family(
        blocks={"transformer_blocks": ("attn", "attn2")},  # attn2: SD3.5's, of the picture alone
        processors=("JointAttnProcessor2_0",),
        axes=2,
        text_side="last",
        noise=1000.0,
        grid=of_picture,
    ),
    "PixArtTransformer2DModel": Family(
        blocks={"transformer_blocks": ("attn1",)},
        processors=("AttnProcessor2_0", "FusedAttnProcessor2_0"),
        axes=2,
        text_side="none",
        noise=1000.0,
        grid=of_picture,
    ),
    "HunyuanVideoTransformer3DModel": Family(
        blocks={"transformer_blocks": ("attn",), "single_transformer_blocks": ("attn",)},
        processors=("HunyuanVideoAttnProcessor2_0",),
        axes=3,
        text_side="last",
        noise=1000.0,
        grid=of_hunyuan,
    ),
    "WanTransformer3DModel": Family(
        blocks={"blocks": ("attn1",)},
        processors=("WanAttnProcessor",),
        axes=3,
        text_side="none",
        noise=1000.0,
        grid=of_video,
    ),
    "LTXVideoTransformer3DModel": Family(
        blocks={"transformer_blocks": ("attn1",)},
        processors=("LTXVideoAttnProcessor",),
        axes=3,
        text_side="none",
        noise=1000.0,
        grid=of_sizes,
    ),
}


def family_of(transformer: Any) -> Family:
    """The row of a transformer's class. ValueError where there is none, or never will be."""
    named = [c.__name__ for c in type(transformer).__mro__ if c.__module__.startswith("diffusers.")]
    for name in named:
        if name in FAMILIES:
            return FAMILIES[name]
    if any(name.startswith("Sana") for name in named):
        raise ValueError(
            f"{named[0]} has linear attention, which never compares single queries and keys, so "
            "there is nothing that groups could leave out"
        )
    raise ValueError(
        f"{type(transformer).__name__} is not a transformer that grouped attention is known for; "
        f"these are: {', '.join(FAMILIES)}"
    )
