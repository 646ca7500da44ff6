"""Between a VAE's latents and pictures: AutoencoderKL and AutoencoderTiny, by their own configs.

Latents are scaled to about unit deviation, as diffusers' networks see them: (z - shift) scale.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def vae_scale(vae: Any | None) -> int:
    """Pixels of a picture's side to one of its latents'; 1 without a VAE."""
    return 1 if vae is None else 2 ** (len(vae.config["block_out_channels"]) - 1)


@torch.no_grad()
def encoded(vae: Any | None, pictures: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) in [-1, 1] as scaled latents: the mean of AutoencoderKL's posterior,
    AutoencoderTiny's own. The pictures themselves without a VAE."""
    if vae is None:
        return pictures
    out, config = vae.encode(pictures), vae.config
    latents = out.latents if "latents" in out else out.latent_dist.mean
    return (latents - (config.get("shift_factor") or 0.0)) * config["scaling_factor"]


@torch.no_grad()
def decoded(vae: Any | None, latents: Tensor) -> Tensor:
    """Scaled latents as pictures (n, 3, h, w) in [-1, 1]; themselves without a VAE."""
    return decoded_with_gradient(vae, latents)


def decoded_with_gradient(vae: Any | None, latents: Tensor) -> Tensor:
    """As `decoded`, for losses on pictures; the VAE's own weights are the caller's to freeze."""
    if vae is None:
        return latents
    shift = vae.config.get("shift_factor") or 0.0
    scaled = (latents / vae.config["scaling_factor"] + shift).to(vae.device)
    return vae.decode(scaled, return_dict=False)[0].to(latents.device)
