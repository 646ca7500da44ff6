"""Teachers read from pipelines: path, kind and time of each scheduler family, from its config."""

from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMapEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from genkit import hub
from genkit.denoisers.diffusers import (
    SCHEDULERS,
    as_denoiser,
    find_network,
    load_denoiser,
    read_schedule,
)
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import EDM, VP, DiscreteVP, RectifiedFlow, TrigFlow
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

SAVED = Path(__file__).parents[1] / "data" / "saved_pipelines"
FLOWS = [FlowMapEulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler]
DISCRETE = [
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
]


SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def test_every_family_is_tried_here():
    ours = {"ConsistencyScheduler", "FlowScheduler"}
    assert set(SCHEDULERS) == {c.__name__ for c in (*FLOWS, *DISCRETE)} | ours


@pytest.mark.parametrize("scheduler", FLOWS)
def test_flow(scheduler):
    read = read_schedule(scheduler(), 8)
    assert (read.path.name, read.kind, read.time_scale) == ("rectified_flow", "velocity", 1000)
    assert read.sampler == Sampler(8)


def test_shifted_flow():
    """The grid of FlowMapEuler, which holds shift in its config."""
    scheduler = FlowMapEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(4)
    read = read_schedule(scheduler, 4)
    assert read.sampler.times == pytest.approx(scheduler.sigmas[:-1].tolist())


@pytest.mark.parametrize("scheduler", DISCRETE)
@pytest.mark.parametrize("stock, kind", [("epsilon", "eps"), ("v_prediction", "v_prediction")])
def test_discrete_vp(scheduler, stock, kind):
    one = scheduler(beta_schedule="scaled_linear", beta_end=0.012, prediction_type=stock)
    read = read_schedule(one, 8)
    assert isinstance(read.path, DiscreteVP)
    assert (read.kind, read.time_scale, read.sampler) == (kind, 1.0, Sampler(8))
    assert torch.allclose(read.path.alphas_cumprod.float(), one.alphas_cumprod, rtol=1e-5)


@pytest.mark.parametrize("scheduler", DISCRETE)
def test_what_moves_a_schedulers_own_grid_moves_no_path(scheduler):
    plain = read_schedule(scheduler(**SD), 8)
    other = {"steps_offset": 1, "set_alpha_to_one": True, "timestep_spacing": "trailing"}
    taken = signature(scheduler.__init__).parameters
    one = scheduler(**SD, **{name: value for name, value in other.items() if name in taken})
    read = read_schedule(one, 8)
    assert (read.path.config(), read.sampler) == (plain.path.config(), plain.sampler)


@pytest.mark.parametrize(
    "scheduler", [each for each in DISCRETE if "rescale_betas_zero_snr" in str(signature(each))]
)
def test_zero_terminal_snr(scheduler):
    """Only the last index, whose SNR is zero, is lifted, and stays below its neighbour."""
    one = scheduler(**SD, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    read = read_schedule(one, 8)
    assert isinstance(read.path, DiscreteVP)
    ours = read.path.alphas_cumprod
    assert torch.allclose(ours[:-1].float(), one.alphas_cumprod[:-1], rtol=1e-2)
    assert 0 < ours[-1] < ours[-2] and ours[-1] <= 2.0**-24


@pytest.mark.parametrize("path", [RectifiedFlow(), TrigFlow(0.5), EDM(), VP(), DiscreteVP()])
@pytest.mark.parametrize("stochastic", [False, True])
def test_ours(path, stochastic):
    sampler = Sampler(2, stochastic=stochastic)
    read = read_schedule(hub.make_scheduler(sampler, path, "v_prediction", 2.0))
    assert read.path.config() == path.config()
    assert (read.kind, read.time_scale, read.sampler) == ("v_prediction", 2.0, sampler)


@pytest.mark.parametrize(
    "scheduler, message",
    [
        (HeunDiscreteScheduler(), "HeunDiscreteScheduler is not known"),
        (DDPMScheduler(trained_betas=[0.1, 0.2]), "trained_betas is not supported"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "use_dynamic_shifting"),
        (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), "stochastic_sampling"),
        (FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "invert_sigmas is not supported"),
        (UniPCMultistepScheduler(use_flow_sigmas=True), "use_flow_sigmas is not supported"),
        (
            EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
            "timestep_type 'continuous'",
        ),
        (DDIMScheduler(prediction_type="noise"), "unknown prediction_type 'noise'"),
        (DDIMScheduler(beta_schedule="linear", prediction_type="flow_prediction"), "unknown pred"),
    ],
)
def test_refused_schedulers(scheduler, message):
    with pytest.raises(ValueError, match=message):
        read_schedule(scheduler)


@pytest.mark.parametrize("name", ["consistency", "flow", "stock"])
def test_denoiser_samples_as_its_pipeline(name):
    """The loaded denoiser, on a scheduler made anew from the loaded sampler."""
    loaded = load_denoiser(SAVED / name)
    assert loaded.latent == (1, 4, 4)
    assert loaded.guidance == 1.0
    assert {k: v.tolist() for k, v in loaded.uncond.items()} == {"label": [3]}
    denoiser = loaded.denoiser
    scheduler = hub.make_scheduler(
        loaded.sampler, denoiser.path, denoiser.kind, denoiser.time_scale
    )
    assert type(scheduler) is type(loaded.pipeline.scheduler)
    generators = sample_generators(0, 2)
    noise = sample_noise(loaded.latent, generators)
    with torch.no_grad():
        cond = {"label": torch.tensor([0, 2])}
        x = denoiser.sample(noise, cond, scheduler, loaded.sampler.steps, generators)
    again = loaded.pipeline([0, 2], generator=sample_generators(0, 2), output_type="latent")
    assert torch.equal(x, again.images)


def test_kind_and_guidance_come_with_the_pipeline(tmp_path):
    scheduler = hub.make_scheduler(Sampler(5, order=2), TrigFlow(0.5), "x_0", 1.0)
    pipe = ClassConditionalImagePipeline(
        MLPDenoiser(sample_size=4, width=4, two_time=True), scheduler
    )
    hub.save_pipeline(pipe, tmp_path / "out", {"steps": 5, "guidance": 1.5})
    loaded = load_denoiser(tmp_path / "out")
    assert (loaded.denoiser.kind, loaded.denoiser.time_scale) == ("x_0", 1.0)
    assert loaded.denoiser.path.config() == TrigFlow(0.5).config()
    assert loaded.denoiser.two_time
    assert (loaded.guidance, loaded.sampler) == (1.5, Sampler(5, order=2))


def test_unknown_networks():
    class Other(MLPDenoiser):
        pass

    pipe = ClassConditionalImagePipeline(
        Other(sample_size=4, width=4), FlowMapEulerDiscreteScheduler()
    )
    with pytest.raises(ValueError, match="no call is known for Other"):
        as_denoiser(pipe)


def test_unknown_pipelines():
    """Which class, which are known, and how to give the call."""
    one = SimpleNamespace(components={})
    for find in (find_network, as_denoiser):
        with pytest.raises(ValueError, match="SimpleNamespace is not known.*StableDiffusion3"):
            find(one)


def test_unknown_folder(tmp_path):
    with pytest.raises(ValueError, match="holds no pipeline"):
        load_denoiser(tmp_path)
