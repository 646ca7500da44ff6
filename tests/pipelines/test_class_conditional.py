"""The class-conditional pipeline: diffusers' conventions, trained defaults, exact samples."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from safetensors.torch import save_file

import genkit
from genkit import hub
from genkit.denoisers.base import Guided, NetworkDenoiser
from genkit.denoisers.calls import class_conditional
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import RectifiedFlow, TrigFlow
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

FLOW = RectifiedFlow()
TWO_STEPS = Sampler(2, stochastic=True)


def network():
    torch.manual_seed(0)
    net = MLPDenoiser(width=16, depth=1).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def pipeline(sampler=TWO_STEPS, path=FLOW):
    scheduler = hub.make_scheduler(sampler, path, "velocity", 1000.0)
    return ClassConditionalImagePipeline(network(), scheduler)


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


def latent(pipe, labels=(1, 2), seed=0, **kwargs):
    count = len(labels) * kwargs.get("num_images_per_prompt", 1)
    kwargs.setdefault("generator", sample_generators(seed, count))
    return pipe(list(labels), output_type="latent", **kwargs).images


# name: (sampler, path, guidance, the scheduler class it must get)
CASES = {
    "stock_1": (Sampler(1), FLOW, 1.0, "FlowMapEulerDiscreteScheduler"),
    "stock_stochastic_1": (Sampler(1, stochastic=True), FLOW, 2.5, "FlowMapEulerDiscreteScheduler"),
    "stock_4": (Sampler(4), FLOW, 3.0, "FlowMapEulerDiscreteScheduler"),
    "flow_3": (Sampler(3, (0.99, 0.7, 0.31)), FLOW, 1.0, "FlowScheduler"),
    "flow_3_order_2": (Sampler(3, order=2), FLOW, 3.0, "FlowScheduler"),
    "flow_trigflow": (Sampler(3), TrigFlow(0.5), 1.5, "FlowScheduler"),
    "consistency_1": (Sampler(1, (1.0,), stochastic=True), FLOW, 1.0, "ConsistencyScheduler"),
    "consistency_2": (Sampler(2, stochastic=True), FLOW, 1.0, "ConsistencyScheduler"),
    "consistency_4": (
        Sampler(4, (0.999, 0.749, 0.499, 0.249), stochastic=True),
        FLOW,
        1.0,
        "ConsistencyScheduler",
    ),
    "consistency_4_guided": (Sampler(4, stochastic=True), FLOW, 3.0, "ConsistencyScheduler"),
}
LABELS = [3, 0, 9, 9, 5]


def trainer_sample(sampler, path, guidance):
    """What a trainer's sample() is: the denoiser and the scheduler, without any pipeline."""
    denoiser = NetworkDenoiser(network(), class_conditional, path, "velocity", 1000.0)
    if guidance != 1:
        denoiser = Guided(denoiser, guidance, {"label": torch.tensor([10])})
    scheduler = hub.make_scheduler(sampler, path, "velocity", 1000.0)
    generators = sample_generators(7, len(LABELS))
    noise = sample_noise((1, 8, 8), generators)
    with torch.no_grad():
        cond = {"label": torch.tensor(LABELS)}
        return denoiser.sample(noise, cond, scheduler, sampler.steps, generators)


def test_saved_pipeline_gives_the_trainers_samples_in_a_fresh_process(tmp_path):
    """Bit for bit, opened by genkit.Pipeline and by the class, as the model card prints it."""
    for name, (sampler, path, guidance, scheduler_class) in CASES.items():
        pipe = pipeline(sampler, path)
        assert type(pipe.scheduler).__name__ == scheduler_class, name
        hub.save_pipeline(pipe, tmp_path / name, {"steps": sampler.steps, "guidance": guidance})
        expected = trainer_sample(sampler, path, guidance)
        save_file({"x": expected.contiguous()}, tmp_path / f"{name}.safetensors")
    script = f"""
        import json, pathlib, torch
        torch.set_num_threads({torch.get_num_threads()})
        import genkit
        from genkit.rng import sample_generators
        from safetensors.torch import load_file
        root, wrong = pathlib.Path({str(tmp_path)!r}), []
        def latents(pipe):
            generators = sample_generators(7, {len(LABELS)})
            return pipe({LABELS}, generator=generators, output_type="latent").images
        for name in {list(CASES)}:
            expected = load_file(root / f"{{name}}.safetensors")["x"]
            if not torch.equal(latents(genkit.Pipeline.from_pretrained(root / name)), expected):
                wrong.append(name)
        from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline
        again = ClassConditionalImagePipeline.from_pretrained(root / name)
        if not torch.equal(latents(again), expected):
            wrong.append("by class")
        print(json.dumps(wrong))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_guidance_and_seed_change_the_samples(pipe):
    """The cases above differ from each other, so their equality says something."""
    base = latent(pipe)
    assert not torch.equal(base, latent(pipe, guidance_scale=3.0))
    assert not torch.equal(base, latent(pipe, seed=1))
    assert not torch.equal(base, latent(pipe, num_inference_steps=1))
    assert not torch.equal(base, latent(pipe, labels=(1, 3)))


def test_one_image_equals_its_row_of_a_batch(pipe):
    """A batch's row and a batch of one differ only by matrix shapes (rounding)."""
    both = latent(pipe, (4, 7))
    alone = latent(pipe, (7,), generator=sample_generators(0, 1, start=1))
    assert torch.allclose(both[1:], alone, atol=1e-4)


def test_output_types(pipe):
    x = latent(pipe)
    run = lambda kind: pipe([1, 2], generator=sample_generators(0, 2), output_type=kind)  # noqa: E731
    pixels = (x / 2 + 0.5).clamp(0, 1)
    assert x.shape == (2, 1, 8, 8)
    assert torch.equal(run("pt").images, pixels)
    assert run("np").images.shape == (2, 8, 8, 1)
    images = run("pil").images
    assert [(im.mode, im.size) for im in images] == [("L", (8, 8))] * 2
    assert np.array_equal(np.asarray(images[0]), (pixels[0, 0] * 255).round().byte().numpy())
    assert isinstance(run("pil"), ImagePipelineOutput)
    assert isinstance(pipe(3, return_dict=False), tuple)


def test_images_per_prompt_stand_together(pipe):
    generators = sample_generators(0, 4)
    x = latent(pipe, (1, 2), num_images_per_prompt=2, generator=generators)
    assert torch.equal(x, latent(pipe, (1, 1, 2, 2)))


def test_single_generator_and_latents(pipe):
    draw = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    x = latent(pipe, generator=draw())
    assert torch.equal(x, latent(pipe, generator=draw()))
    one_step = {"num_inference_steps": 1}
    noise = torch.randn(2, 1, 8, 8, generator=draw())
    given = latent(pipe, latents=noise, **one_step)
    assert torch.equal(given, latent(pipe, generator=draw(), **one_step))


def test_callback(pipe):
    seen = []

    def halve(pipeline, i, timestep, tensors):
        seen.append((pipeline is pipe, i, float(timestep), list(tensors)))
        return {"latents": tensors["latents"] / 2}

    x = latent(pipe, callback_on_step_end=halve)
    assert seen == [(True, 0, 1000.0, ["latents"]), (True, 1, 500.0, ["latents"])]
    assert pipe.num_timesteps == 2
    assert not torch.allclose(x, latent(pipe))
    untouched = latent(pipe, callback_on_step_end=lambda *_: {})
    assert torch.equal(untouched, latent(pipe))


def test_callback_may_turn_guidance_off(pipe):
    def off(pipeline, i, timestep, tensors):
        pipeline._guidance_scale = 1.0
        return tensors

    x = latent(pipe, guidance_scale=3.0, callback_on_step_end=off)
    assert pipe.guidance_scale == 1.0
    assert not torch.equal(x, latent(pipe, guidance_scale=3.0))
    assert not torch.equal(x, latent(pipe))


@pytest.mark.parametrize(
    "labels, kwargs, message",
    [
        ([10], {}, "class label 10 is out of range; give 0 to 9"),
        ([-1], {}, "class label -1 is out of range"),
        (["3"], {}, "integers, 0 to 9"),
        ([True], {}, "integers, 0 to 9"),
        ([], {}, "integers, 0 to 9"),
        ([1], {"num_inference_steps": 0}, "num_inference_steps is 0"),
        ([1], {"num_inference_steps": -4}, "num_inference_steps is -4"),
        ([1], {"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ([1], {"latents": torch.zeros(2, 1, 8, 8)}, r"\(1, 1, 8, 8\) is needed"),
        ([1, 2], {"generator": [torch.Generator()]}, "1 generators for 2 samples"),
        ([1], {"output_type": "jpg"}, "unknown output_type 'jpg'; choose pil"),
        ([1], {"callback_on_step_end_tensor_inputs": ["noise"]}, "'noise'; there is only latents"),
    ],
)
def test_bad_calls(pipe, labels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pipe(labels, **kwargs)


def test_fixed_grid_refuses_other_steps():
    pipe = pipeline(Sampler(2, (1.0, 0.4), stochastic=True))
    assert latent(pipe, num_inference_steps=2).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="exactly 2 steps, not 3"):
        pipe(1, num_inference_steps=3)


def test_no_trained_number_of_steps():
    """A stock scheduler holds none, so a pipeline put together by hand must be told."""
    pipe = pipeline(Sampler(4))
    with pytest.raises(ValueError, match="give num_inference_steps"):
        pipe(1)
    assert latent(pipe, num_inference_steps=4).shape == (2, 1, 8, 8)


def test_trained_defaults_survive_a_save_by_diffusers(tmp_path):
    hub.save_pipeline(pipeline(Sampler(3)), tmp_path / "a", {"steps": 3, "guidance": 2.0})
    first = genkit.Pipeline.from_pretrained(tmp_path / "a")
    first.save_pretrained(tmp_path / "b")
    second = ClassConditionalImagePipeline.from_pretrained(tmp_path / "b")
    assert hub.trained(second) == hub.trained(first)
    assert torch.equal(latent(first), latent(second))
    explicit = latent(first, num_inference_steps=3, guidance_scale=2.0)
    assert torch.equal(latent(first), explicit)
    assert first.guidance_scale == 2.0 and first.num_timesteps == 3


def test_progress_bar_is_silent_on_short_calls(pipe, capfd):
    pipe(1)
    assert capfd.readouterr().err == ""


def test_it_is_a_diffusers_pipeline(pipe):
    assert isinstance(pipe, DiffusionPipeline)
    assert set(pipe.components) == {"network", "scheduler"}
    assert pipe.to(torch.float64)(1, output_type="latent").images.dtype == torch.float64
    pipe.to(torch.float32)


@pytest.mark.slow
def test_overhead_over_the_bare_sampler():
    """At most 3% at 50 steps and 10 ms at 1; as scripts/bench_pipeline.py prints it."""
    from scripts.bench_pipeline import measure

    assert measure(steps=50).share < 0.03
    assert measure(steps=1).extra_ms < 10
