"""A tiny pipeline of every known family: random weights, text encoders and tokenizers built here.

Nothing is downloaded and nothing has learned anything: tokenizers read letters, latents are 8 x 8.
Each builder gives an open stock pipeline in eval mode; `seed` fixes its weights.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CHANNELS, SIZE, WIDTH, LENGTH = 4, 8, 16, 12
SD_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SD_DDIM = {**SD_BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: a token per letter."""
    words = [*LETTERS, *(letter + "</w>" for letter in LETTERS)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LENGTH)


def t5_tokenizer() -> T5Tokenizer:
    """T5's tokenizer: a piece per letter."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    return T5Tokenizer(vocab=special + [(letter, -3.0) for letter in LETTERS], extra_ids=0)


def clip_encoder(projection: int | None = None) -> Any:
    """CLIP's text encoder, with a pooled projection where asked for."""
    last = 2 * len(LETTERS) + 1
    config = CLIPTextConfig(
        vocab_size=last + 1,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=projection or WIDTH,
        bos_token_id=last - 1,
        eos_token_id=last,
        pad_token_id=last,
    )
    return CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)


def t5_encoder(width: int = WIDTH) -> T5EncoderModel:
    """T5's encoder for `t5_tokenizer`."""
    config = T5Config(
        vocab_size=len(LETTERS) + 4, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return T5EncoderModel(config)


def vae(channels: int = CHANNELS) -> AutoencoderKL:
    """AutoencoderKL, 16 x 16 pixels to 8 x 8 latents."""
    return AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=2 * SIZE,
        scaling_factor=0.18215,
        shift_factor=0.1,
    )


def text_unet(**config: Any) -> UNet2DConditionModel:
    """SD's U-Net: cross-attention to text in one of two blocks."""
    return UNet2DConditionModel(
        **{
            "sample_size": SIZE,
            "in_channels": CHANNELS,
            "out_channels": CHANNELS,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": WIDTH,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            **config,
        }
    )


def unet(**config: Any) -> UNet2DModel:
    """DDPM's U-Net in pixels."""
    return UNet2DModel(
        **{
            "sample_size": SIZE,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 4,
            "norm_num_groups": 4,
            **config,
        }
    )


def pixart_transformer(**config: Any) -> PixArtTransformer2DModel:
    """PixArt's transformer with its learned sigma."""
    return PixArtTransformer2DModel(
        **{
            "sample_size": SIZE,
            "in_channels": CHANNELS,
            "out_channels": 2 * CHANNELS,
            "num_layers": 2,
            "patch_size": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 12,  # 24 in all: the size embedding is three parts
            "caption_channels": WIDTH,
            "cross_attention_dim": 24,
            **config,
        }
    )


def stable_diffusion(
    prediction: str = "epsilon", scheduler: Any = None, **unet_config: Any
) -> StableDiffusionPipeline:
    """SD with DDIM as SD 1.5 and 2.1 configure it; prediction: "epsilon" or "v_prediction"."""
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_encoder(),
        tokenizer=clip_tokenizer(),
        unet=text_unet(**unet_config),
        scheduler=scheduler or DDIMScheduler(**SD_DDIM, prediction_type=prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _pixart(owner: Any, scheduler: Any, config: dict[str, Any]) -> Any:
    return owner(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae(),
        transformer=pixart_transformer(**config),
        scheduler=scheduler or DDIMScheduler(**SD_DDIM),
    )


def pixart_alpha(scheduler: Any = None, **config: Any) -> PixArtAlphaPipeline:
    """PixArt-alpha; use_additional_conditions=True adds the 1024-pixel model's size embedding."""
    return _pixart(PixArtAlphaPipeline, scheduler, config)


def pixart_sigma(scheduler: Any = None, **config: Any) -> PixArtSigmaPipeline:
    """PixArt-sigma."""
    return _pixart(PixArtSigmaPipeline, scheduler, config)


def stable_diffusion_3(
    shift: float = 3.0, scheduler: Any = None, **config: Any
) -> StableDiffusion3Pipeline:
    """SD3 with all three text encoders."""
    transformer = SD3Transformer2DModel(
        **{
            "sample_size": SIZE,
            "in_channels": CHANNELS,
            "out_channels": CHANNELS,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "caption_projection_dim": 16,
            "joint_attention_dim": 40,
            "pooled_projection_dim": 2 * WIDTH,
            "pos_embed_max_size": SIZE,
            **config,
        }
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=vae(),
        text_encoder=clip_encoder(WIDTH),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(WIDTH),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(40),
        tokenizer_3=t5_tokenizer(),
    )


def ddpm(scheduler: Any = None, **config: Any) -> DDPMPipeline:
    """DDPM in pixels, unconditional."""
    return DDPMPipeline(unet(**config), scheduler or DDPMScheduler())


def ddim(scheduler: Any = None, **config: Any) -> DDIMPipeline:
    """DDIM in pixels, unconditional."""
    return DDIMPipeline(unet(**config), scheduler or DDIMScheduler(clip_sample=False))


TEXT: dict[str, Callable[..., Any]] = {
    "sd-eps": stable_diffusion,
    "sd-v": lambda **given: stable_diffusion("v_prediction", **given),
    "pixart-alpha": pixart_alpha,
    "pixart-sigma": pixart_sigma,
    "sd3": stable_diffusion_3,
}


def build(builder: Callable[..., Any], seed: int = 0, **given: Any) -> Any:
    """The builder's pipeline with weights of `seed`, in eval mode and silent."""
    torch.manual_seed(seed)
    pipeline = builder(**given)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
