"""Parts of a pipeline that contradict each other, and configs no call serves: one sentence each."""

import pytest
import tiny_families as tiny
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from genkit import hub
from genkit.denoisers.calls import network_call
from genkit.denoisers.diffusers import as_denoiser
from genkit.paths import DiscreteVP
from genkit.sampling import Sampler

FLOW = FlowMatchEulerDiscreteScheduler()
LEARNED = DDPMScheduler(variance_type="learned_range")


@pytest.mark.parametrize(
    "builder, given, message",
    [
        (
            "stable_diffusion",
            {"scheduler": FLOW},
            "contradicts StableDiffusionPipeline",
        ),
        ("pixart_sigma", {"scheduler": FLOW}, "FlowMatch.* contradicts PixArtSigmaPipeline"),
        ("stable_diffusion_3", {"scheduler": DDIMScheduler()}, "DDIM.* contradicts.*needs a flow"),
        (
            "pixart_alpha",
            {"scheduler": DDIMScheduler(num_train_timesteps=500)},
            r"counts 500 timesteps.*made for 1000 \(num_embeds_ada_norm\)",
        ),
        ("ddpm", {"scheduler": LEARNED}, "learned variance .*'learned_range'.*it has none"),
        ("ddpm", {"out_channels": 6}, "6 channels for 3, a learned variance, which its scheduler"),
        ("ddpm", {"out_channels": 4}, "takes 3 channels and returns 4"),
        ("stable_diffusion", {"in_channels": 9, "out_channels": 9}, "takes 9 channels, the vae"),
        ("stable_diffusion", {"cross_attention_dim": 24}, "text 24 wide .cross_attention_dim.* 16"),
        ("pixart_alpha", {"caption_channels": 24}, "text 24 wide .caption_channels.* gives 16"),
        ("stable_diffusion_3", {"joint_attention_dim": 48}, "text 48 wide .joint_attention_dim"),
        ("stable_diffusion_3", {"pooled_projection_dim": 16}, "pooled text 16 wide.* give 32"),
        ("ddpm", {"sample_size": None}, "config has no sample_size"),
    ],
)
def test_contradictions(builder, given, message):
    pipeline = tiny.build(getattr(tiny, builder), **given)
    with pytest.raises(ValueError, match=message) as caught:
        as_denoiser(pipeline)
    assert "\n" not in str(caught.value)


def test_a_missing_text_encoder_is_no_contradiction():
    """SD3 runs without its T5, and gives zeros in its place."""
    pipeline = tiny.build(tiny.stable_diffusion_3)
    pipeline.text_encoder_3 = None
    loaded = as_denoiser(pipeline)
    assert loaded.uncond["encoder_hidden_states"][:, tiny.LENGTH :].abs().sum() == 0


def test_our_scheduler_names_its_own_path():
    """A student of Stable Diffusion that samples stochastically is opened again."""
    scheduler = hub.make_scheduler(Sampler(3, stochastic=True), DiscreteVP(), "eps", 1.0)
    pipeline = tiny.build(tiny.stable_diffusion, scheduler=scheduler)
    assert as_denoiser(pipeline).sampler == Sampler(3, stochastic=True)


@pytest.mark.parametrize(
    "make, config, key",
    [
        (tiny.text_unet, {"time_cond_proj_dim": 8}, "time_cond_proj_dim=8"),
        (tiny.text_unet, {"num_class_embeds": 3}, "num_class_embeds=3"),
        (tiny.text_unet, {"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        (
            tiny.text_unet,
            {"addition_embed_type": "text", "encoder_hid_dim": 16},
            "addition_embed_type='text'",
        ),
        (tiny.unet, {"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
        (tiny.unet, {"class_embed_type": "identity"}, "class_embed_type='identity'"),
    ],
)
def test_configs_no_call_serves(make, config, key):
    with pytest.raises(ValueError, match=f"{key} in its config is not supported.*NetworkDenoiser"):
        network_call(make(**config))
