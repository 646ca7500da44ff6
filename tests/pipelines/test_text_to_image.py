"""The text-to-image pipeline: prompts, guidance, latents, and exact samples."""

import warnings

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

import genkit
from genkit import hub
from genkit.denoisers.base import Guided, NetworkDenoiser
from genkit.denoisers.calls import CALLS
from genkit.networks.text import text_encoder, text_transformer, word_tokenizer
from genkit.paths import RectifiedFlow
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler
from genkit_pipelines.image.text_to_image import TextToImagePipeline

WORDS = ("a red cat", "two dogs on a blue background")
PATH = RectifiedFlow()


def pipeline(vae=None, channels=3):
    torch.manual_seed(0)
    tokenizer = word_tokenizer(WORDS, length=8)
    encoder = text_encoder(len(tokenizer)).eval()
    network = text_transformer(channels, 8, heads=2, width=8, depth=1).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    scheduler = hub.make_scheduler(Sampler(4), PATH, "x_0", 1000.0)
    return TextToImagePipeline(tokenizer, encoder, network, scheduler, vae)


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


def latent(pipe, prompt="a red cat", **kwargs):
    many = len(prompt) if isinstance(prompt, list) else 1
    kwargs.setdefault("generator", sample_generators(0, many))
    return pipe(prompt, output_type="latent", **kwargs).images


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_samples_as_the_denoiser_does(pipe, scale):
    prompts = ["a red cat", "two dogs"]
    call = CALLS[type(pipe.network).__name__]
    plain = NetworkDenoiser(pipe.network, call, PATH, "x_0", 1000.0)
    cond = {"encoder_hidden_states": pipe.encode_prompt(prompts)}
    uncond = {"encoder_hidden_states": pipe.encode_prompt("")}
    denoiser = plain if scale == 1 else Guided(plain, scale, uncond)
    generators = sample_generators(0, 2)
    noise = sample_noise((3, 8, 8), generators)
    scheduler = hub.make_scheduler(Sampler(4), PATH, "x_0", 1000.0)
    with torch.no_grad():
        expected = denoiser.sample(noise, cond, scheduler, 4, generators)
    assert torch.equal(latent(pipe, prompts, guidance_scale=scale), expected)


def test_a_saved_pipeline_keeps_its_words_and_its_samples(pipe, tmp_path):
    hub.save_pipeline(pipe, tmp_path / "p", {"steps": 4, "guidance": 2.0})
    again = genkit.Pipeline.from_pretrained(tmp_path / "p")
    assert isinstance(again, TextToImagePipeline) and again.vae is None
    assert torch.equal(latent(again), latent(pipe, num_inference_steps=4, guidance_scale=2.0))


def test_weights_of_16_bits_open_in_float32(tmp_path):
    small = pipeline().to(torch.bfloat16)
    hub.save_pipeline(small, tmp_path / "p", {"steps": 4, "guidance": 2.0})
    again = genkit.Pipeline.from_pretrained(tmp_path / "p")
    assert {again.network.dtype, again.text_encoder.dtype} == {torch.float32}
    assert latent(again).isfinite().all()
    half = genkit.Pipeline.from_pretrained(tmp_path / "p", dtype=torch.bfloat16)
    assert {half.network.dtype, half.text_encoder.dtype} == {torch.bfloat16}


def test_a_text_encoder_that_lacks_a_weight_is_refused(tmp_path):
    """transformers would fill it at random and warn; tied weights, saved once, are no lack."""
    folder = hub.save_pipeline(pipeline(), tmp_path / "whole", {"steps": 1})
    genkit.Pipeline.from_pretrained(folder)
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    state = load_file(file)
    name = next(each for each in sorted(state) if "layer.0" in each)
    save_file({key: value for key, value in state.items() if key != name}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"text_encoder lacks 1 of its weights, {name}"):
        genkit.Pipeline.from_pretrained(folder)


def test_a_prompt_is_its_embedding(pipe):
    by_embedding = pipe(
        prompt_embeds=pipe.encode_prompt("a red cat"),
        generator=sample_generators(0, 1),
        output_type="latent",
    ).images
    assert torch.equal(by_embedding, latent(pipe))


def test_a_negative_prompt_takes_the_place_of_no_condition(pipe):
    plain = latent(pipe, guidance_scale=3.0)
    assert torch.equal(latent(pipe, guidance_scale=3.0, negative_prompt=""), plain)
    assert not torch.equal(latent(pipe, guidance_scale=3.0, negative_prompt="two dogs"), plain)
    # uncond + w (cond - uncond) with both the same is that, whatever w.
    same = latent(pipe, guidance_scale=3.0, negative_prompt="a red cat")
    assert torch.allclose(same, latent(pipe, guidance_scale=1.0), atol=1e-4)
    with pytest.warns(UserWarning, match="negative_prompt does nothing at guidance_scale 1"):
        latent(pipe, guidance_scale=1.0, negative_prompt="two dogs")


def test_pictures_of_one_prompt_stand_together(pipe):
    prompts = ["a red cat", "two dogs"]
    many = pipe(
        prompts,
        num_images_per_prompt=2,
        generator=sample_generators(0, 4),
        output_type="latent",
    ).images
    lone = pipe("two dogs", generator=sample_generators(0, 4)[2:3], output_type="latent").images
    assert torch.allclose(many[2:3], lone, atol=1e-5)


def test_unknown_words_and_long_prompts_are_said(pipe):
    with pytest.warns(UserWarning, match="words this model does not know, .*: giraffe"):
        pipe.tokens(["a giraffe"])
    with pytest.warns(UserWarning, match="more than 7; only 'a red cat a red cat a' is read"):
        pipe.tokens(["a red cat a red cat a red cat"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.tokens(["A red CAT", ""])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "give either prompt or prompt_embeds"),
        ({"prompt": "a", "prompt_embeds": torch.zeros(1, 8, 128)}, "give either"),
        ({"prompt": []}, "empty list"),
        ({"prompt": 3}, "give a string or a list of strings"),
        ({"prompt": ["a", 3]}, "give a string or a list of strings"),
        ({"prompt": "a", "num_inference_steps": 0}, "give at least 1"),
        ({"prompt": "a", "num_images_per_prompt": 0}, "give at least 1"),
        ({"prompt": "a", "output_type": "gif"}, "unknown output_type"),
        ({"prompt": ["a", "a", "a"], "negative_prompt": ["a", "a"], "guidance_scale": 2.0},
         "2 negative prompts for 3 prompts"),
        ({"prompt": "a", "generator": sample_generators(0, 2)}, "2 generators for 1 samples"),
        ({"prompt": "a", "latents": torch.zeros(1, 3, 4, 4)}, "latents have shape"),
        ({"prompt": "a", "callback_on_step_end_tensor_inputs": ["text"]}, "there is only latents"),
    ],
)  # fmt: skip
def test_what_it_cannot_use_is_refused(pipe, wrong, said):
    with pytest.raises(ValueError, match=said):
        pipe(**wrong)


def test_a_callback_sees_and_may_change_every_step(pipe):
    seen = []

    def look(pipeline, step, timestep, given):
        seen.append((step, pipeline.guidance_scale))
        return {"latents": given["latents"] * 0}

    x = latent(pipe, guidance_scale=2.0, callback_on_step_end=look)
    assert seen == [(i, 2.0) for i in range(4)] and not x.any()


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_a_vae_decodes_its_latents(kind):
    torch.manual_seed(0)
    vae = (
        AutoencoderKL(block_out_channels=(4, 8), norm_num_groups=2, latent_channels=2,
                      down_block_types=("DownEncoderBlock2D",) * 2,
                      up_block_types=("UpDecoderBlock2D",) * 2)
        if kind == "kl"
        else AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                             num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
                             latent_channels=2)
    ).eval()  # fmt: skip
    pipe = pipeline(vae, channels=2)
    z = latent(pipe)
    assert z.shape == (1, 2, 8, 8)
    with torch.no_grad():
        pictures = vae.decode(z / vae.config["scaling_factor"], return_dict=False)[0]
    shown = pipe("a red cat", generator=sample_generators(0, 1), output_type="np").images
    expected = (pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert shown.shape == (1, 16, 16, 3) and np.allclose(shown, expected, atol=1e-6)


def test_a_tuple_where_no_dict_is_wanted(pipe):
    (images,) = pipe("a red cat", return_dict=False)
    assert [each.size for each in images] == [(8, 8)]
