"""Stock pipelines against our Denoisers: their own loop for 4 steps, to 1e-5 of max |latent|.

Tiny configs, random weights, text encoders and tokenizers built in code (tiny_families.py). The
stock scheduler steps on our output, converted from the kind the network gives to another one, so
the path is tried too. Each way of being wrong that is named here is tried and must be seen.
"""

from dataclasses import replace

import diffusers
import pytest
import tiny_families as tiny
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from genkit import hub
from genkit.denoisers.base import Guided, NetworkDenoiser
from genkit.denoisers.diffusers import as_denoiser, read_schedule
from genkit.denoisers.families import PIPELINES, rebuilt
from genkit.networks.text import text_encoder, text_transformer, word_tokenizer
from genkit.paths import DiscreteVP
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler
from genkit_pipelines.image.text_to_image import TextToImagePipeline

PROMPTS = ["a red dog", "two cats under one blue tree"]
WITHOUT_BINS = {"PixArtAlphaPipeline", "PixArtSigmaPipeline"}
STEPS, W = 4, 3.0
STOCK = {"eps": "epsilon", "x_0": "sample", "v_prediction": "v_prediction"}


@pytest.fixture(scope="module", params=tiny.TEXT)
def loaded(request):
    return as_denoiser(tiny.build(tiny.TEXT[request.param]))


def text_to_image():
    """Our own pipeline, in pixels."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(PROMPTS)
    network = text_transformer(3, 8, heads=2, width=8, depth=2)
    for parameter in network.parameters():  # gates and output are zero in a new network
        torch.nn.init.normal_(parameter, std=0.2)
    scheduler = hub.make_scheduler(Sampler(STEPS), DiscreteVP(), "x_0", 1.0)
    return TextToImagePipeline(tokenizer, text_encoder(len(tokenizer)), network, scheduler)


def noise_of(loaded):
    return sample_noise(loaded.latent, sample_generators(0, len(PROMPTS)))


def stock(loaded, w, scheduler=None):
    """The pipeline's own loop on the prompts themselves."""
    pipeline, before = loaded.pipeline, loaded.pipeline.scheduler
    extra = {"use_resolution_binning": False, "clean_caption": False}
    pipeline.scheduler = scheduler or before
    images = pipeline(
        PROMPTS,
        num_inference_steps=STEPS,
        guidance_scale=w,
        latents=noise_of(loaded),
        output_type="latent",
        **(extra if type(pipeline).__name__ in WITHOUT_BINS else {}),
    ).images
    pipeline.scheduler = before
    return images


def wanted(denoiser, scheduler, x, t, cond):
    """Our prediction, of the kind the scheduler wants by its config."""
    if scheduler.config.get("prediction_type") is None:  # a flow, put together from x_0 and eps
        x_0 = denoiser.predict(x, t, cond, "x_0")
        return denoiser.predict(x, t, cond, "eps") - x_0
    kind = next(k for k, name in STOCK.items() if name == scheduler.config["prediction_type"])
    return denoiser.predict(x, t, cond, kind)


def converted(scheduler):
    """The same scheduler for a network that predicts something else; PNDM, whose multistep formula
    averages raw outputs, is another sampler then, and stays as it is."""
    if "prediction_type" not in scheduler.config or isinstance(scheduler, PNDMScheduler):
        return scheduler
    other = "epsilon" if scheduler.config["prediction_type"] == "v_prediction" else "v_prediction"
    return type(scheduler).from_config(scheduler.config, prediction_type=other)


@torch.no_grad()
def ours(loaded, cond, w, scheduler=None):
    """The stock scheduler, stepping on our Denoiser's converted output."""
    scheduler = converted(scheduler or loaded.pipeline.scheduler)
    denoiser = loaded.denoiser if w == 1 else Guided(loaded.denoiser, w, loaded.uncond)
    scale = read_schedule(loaded.pipeline.scheduler).time_scale
    scheduler.set_timesteps(STEPS)
    x = noise_of(loaded) * getattr(scheduler, "init_noise_sigma", 1.0)
    for timestep in scheduler.timesteps:
        t = (timestep.double() / scale).expand(len(x))
        flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
        x_t = x if flow else scheduler.scale_model_input(x, timestep)
        value = wanted(denoiser, scheduler, x_t, t, cond)
        x = scheduler.step(value.to(x.dtype), timestep, x, return_dict=False)[0]
    return x


def error(got, expected):
    return float((got - expected).abs().max() / expected.abs().max())


def encoded(loaded):
    return loaded.family.encode(loaded.pipeline, PROMPTS)


def test_every_family_is_tried_here():
    tried = {type(tiny.build(each)).__name__ for each in tiny.TEXT.values()}
    ours = {name for name in PIPELINES if not hasattr(diffusers, name)}
    assert tried | ours | {"DDPMPipeline", "DDIMPipeline"} == set(PIPELINES)


@pytest.mark.parametrize("w", [1.0, W])
def test_parity(loaded, w):
    expected = stock(loaded, w)
    assert error(ours(loaded, encoded(loaded), w), expected) <= 1e-5
    assert error(ours(loaded, encoded(loaded), 1.5 if w == 1 else 1.0), expected) > 1e-3


def test_conditions(loaded):
    """Rows are the prompts, in float32 without gradient; the call takes what `arguments` gives."""
    cond, uncond = encoded(loaded), loaded.uncond
    assert cond.keys() == uncond.keys()
    assert all(len(value) == 2 and value.dtype == torch.float32 for value in cond.values())
    assert all(len(value) == 1 and not value.requires_grad for value in uncond.values())
    for w in (1.0, W):
        given = loaded.family.arguments(cond, None if w == 1 else uncond)
        call = {"num_inference_steps": STEPS, "guidance_scale": w, "latents": noise_of(loaded)}
        images = loaded.pipeline(**given, **call, output_type="latent").images
        assert error(images, stock(loaded, w)) <= 1e-5


def broken(loaded):
    """{what is wrong: a denoiser and a condition that are}."""
    cond, right = encoded(loaded), loaded.denoiser
    other = "eps" if right.kind == "v_prediction" else "v_prediction"

    def made(kind=right.kind, path=right.path, scale=right.time_scale):
        return NetworkDenoiser(right.network, right.call, path, kind, scale)

    wrong = {"kind": (made(kind=other), cond), "time": (made(scale=right.time_scale / 2), cond)}
    if isinstance(right.path, DiscreteVP):
        wrong["betas"] = (made(path=DiscreteVP("linear", 1e-4, 0.02)), cond)
    wrong["prompt"] = (right, {name: value.flip(0) for name, value in cond.items()})
    if "attention_mask" in cond:
        wrong["mask"] = (right, {k: v for k, v in cond.items() if k != "attention_mask"})
    if "pooled_projections" in cond:
        zero = torch.zeros_like(cond["pooled_projections"])
        wrong["pooled"] = (right, cond | {"pooled_projections": zero})
    return wrong


def test_broken_twins_are_seen(loaded):
    expected = stock(loaded, 1.0)
    for what, (denoiser, cond) in broken(loaded).items():
        assert error(ours(replace(loaded, denoiser=denoiser), cond, 1.0), expected) > 1e-4, what


def test_shift_and_its_broken_twin():
    loaded = as_denoiser(tiny.build(tiny.stable_diffusion_3, shift=3.0))
    expected, cond = stock(loaded, 1.0), encoded(loaded)
    assert loaded.sampler.times is not None
    unshifted = FlowMatchEulerDiscreteScheduler()
    assert error(ours(loaded, cond, 1.0, unshifted), expected) > 1e-2
    assert error(ours(loaded, cond, 1.0, unshifted), stock(loaded, 1.0, unshifted)) <= 1e-5


@pytest.mark.parametrize(
    "owner, config",
    [
        (DDIMScheduler, {"timestep_spacing": "trailing", "clip_sample": False}),
        (PNDMScheduler, {"skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": True}),
        (EulerDiscreteScheduler, {"steps_offset": 1}),
        (EulerDiscreteScheduler, {"timestep_spacing": "trailing", "use_karras_sigmas": True}),
        (LMSDiscreteScheduler, {}),
        (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
        (UniPCMultistepScheduler, {}),
    ],
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_stable_diffusions_usual_schedulers(owner, config, prediction):
    scheduler = owner(**tiny.SD_BETAS, **config, prediction_type=prediction)
    loaded = as_denoiser(tiny.build(tiny.stable_diffusion, scheduler=scheduler))
    assert error(ours(loaded, encoded(loaded), 1.0), stock(loaded, 1.0)) <= 1e-5


@pytest.mark.parametrize("owner", [DDIMScheduler, EulerDiscreteScheduler])
def test_zero_terminal_snr(owner):
    """Trailing steps begin at the index of no signal. DDIM holds alpha = 0 there, our path 2^-12;
    from v that is 2^-12 of x in the first x_0."""
    config = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    extra = {"clip_sample": False} if owner is DDIMScheduler else {}
    scheduler = owner(**tiny.SD_BETAS, **config, **extra, prediction_type="v_prediction")
    loaded = as_denoiser(tiny.build(tiny.stable_diffusion, scheduler=scheduler))
    x, cond = noise_of(loaded), encoded(loaded)
    t = torch.full((2,), 999.0, dtype=torch.float64)
    with torch.no_grad():
        v = loaded.denoiser.predict(x, t, cond, "v_prediction")
        x_0 = loaded.denoiser.predict(x, t, cond, "x_0")
    assert error(x_0, -v) < 1e-3


def test_unconditional():
    """DDIMPipeline gives pictures in [0, 1], whatever is asked."""
    loaded = as_denoiser(tiny.build(tiny.ddim))
    generators = sample_generators(0, 2)
    images = loaded.pipeline(2, generators, num_inference_steps=STEPS, output_type="np").images
    expected = torch.from_numpy(images).permute(0, 3, 1, 2)
    assert loaded.family.arguments({}, None) == {} and loaded.guidance == 1.0
    assert error(ours(loaded, {}, 1.0).div(2).add(0.5).clamp(0, 1), expected) <= 1e-5


def test_learned_variance_is_dropped():
    scheduler = DDPMScheduler(variance_type="learned_range")
    loaded = as_denoiser(tiny.build(tiny.ddpm, scheduler=scheduler, out_channels=6))
    x, t = noise_of(loaded), torch.full((2,), 500.0)
    whole = loaded.denoiser.network(x, t, return_dict=False)[0]
    assert torch.equal(loaded.denoiser.predict(x, t, {}, "eps"), whole[:, :3])


def test_class_labels_of_a_unet():
    """The network takes them; the stock pipeline never passes them, which is said."""
    loaded = as_denoiser(tiny.build(tiny.ddpm, num_class_embeds=3))
    x, t = noise_of(loaded), torch.full((2,), 500.0)
    one, two = (
        loaded.denoiser.predict(x, t, {"label": torch.tensor(pair)}, "eps")
        for pair in ([0, 1], [0, 2])
    )
    assert torch.equal(one[0], two[0]) and not torch.equal(one[1], two[1])
    with pytest.raises(ValueError, match="pass no class label"):
        loaded.family.arguments({"label": torch.tensor([0, 1])}, None)


def test_size_conditions_of_pixart_alpha():
    """The 1024-pixel model's embedding of resolution and ratio is read from the configs."""
    loaded = as_denoiser(tiny.build(tiny.pixart_alpha, use_additional_conditions=True))
    cond = encoded(loaded)
    assert cond["resolution"].tolist() == [[16, 16], [16, 16]]
    assert cond["aspect_ratio"].tolist() == [[1.0], [1.0]]
    x, t = noise_of(loaded), torch.full((2,), 500.0)
    bigger = cond | {"resolution": cond["resolution"] * 2}
    one, two = (loaded.denoiser.predict(x, t, each, "eps") for each in (cond, bigger))
    assert one.shape == x.shape and error(two, one) > 1e-5


@pytest.mark.parametrize("w", [1.0, W])
def test_our_text_to_image(w):
    """The same network class without a mask, by our own pipeline's loop."""
    loaded = as_denoiser(text_to_image())
    cond, noise = encoded(loaded), noise_of(loaded)
    assert set(cond) == {"encoder_hidden_states"} and loaded.guidance == 1.0
    given = loaded.family.arguments(cond, None if w == 1 else loaded.uncond)
    call = {"guidance_scale": w, "num_inference_steps": STEPS, "latents": noise}
    images = loaded.pipeline(**given, **call, output_type="latent").images
    denoiser = loaded.denoiser if w == 1 else Guided(loaded.denoiser, w, loaded.uncond)
    with torch.no_grad():
        x = denoiser.sample(noise, cond, loaded.pipeline.scheduler, STEPS)
    assert torch.equal(images, x)


def test_guidance_defaults():
    """The call's own where a pipeline was never ours, else what it was saved with."""
    guidance = {name: as_denoiser(tiny.build(each)).guidance for name, each in tiny.TEXT.items()}
    sd, pixart = {"sd-eps": 7.5, "sd-v": 7.5}, {"pixart-alpha": 4.5, "pixart-sigma": 4.5}
    assert guidance == sd | pixart | {"sd3": 7.0}
    pipeline = tiny.build(tiny.stable_diffusion)
    pipeline.register_to_config(_genkit={"steps": 4})
    assert as_denoiser(pipeline).guidance == 1.0
    assert rebuilt(pipeline, pipeline.unet, pipeline.scheduler).vae is pipeline.vae
