"""Tests of genkit/latents.py."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from genkit.latents import decoded, encoded, vae_scale


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2,
              "up_block_types": ("UpDecoderBlock2D",) * 2}  # fmt: skip
    given = {"latent_channels": 2, "norm_num_groups": 2, "block_out_channels": (4, 8)}
    return AutoencoderKL(**blocks, **given, scaling_factor=0.5, shift_factor=0.25).eval()


def test_latents_are_shifted_then_scaled_and_back(vae: AutoencoderKL):
    x = torch.rand(2, 3, 8, 8)
    z = encoded(vae, x)
    with torch.no_grad():
        mean = vae.encode(x).latent_dist.mean
        assert torch.allclose(z, (mean - 0.25) * 0.5)
        assert torch.allclose(decoded(vae, z), vae.decode(mean).sample, atol=1e-5)
    assert z.shape[-1] * vae_scale(vae) == 8 and not z.requires_grad


def test_the_tiny_autoencoder_has_no_posterior():
    given = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    vae, x = AutoencoderTiny(**given, **blocks, latent_channels=2).eval(), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(encoded(vae, x), vae.encode(x).latents * vae.config["scaling_factor"])
    assert vae_scale(vae) == 2


def test_without_one_pictures_are_their_own_latents():
    x = torch.rand(1, 3, 4, 4)
    assert encoded(None, x) is x and decoded(None, x) is x and vae_scale(None) == 1
