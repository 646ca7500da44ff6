"""How students of stock pipelines leave: opened by plain diffusers, bit for bit our own sample.

A fresh process that never imports genkit opens every folder and calls it with embeddings, and with
the code its card prints. Tiny configs, random weights (tiny_families.py).
"""

import copy
import json
import os
import subprocess
import sys

import pytest
import tiny_families as tiny
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, FlowMapEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from genkit import hub
from genkit.denoisers.diffusers import as_denoiser
from genkit.denoisers.families import rebuilt
from genkit.paths import DiscreteVP, RectifiedFlow
from genkit.rng import sample_noise
from genkit.sampling import Sampler

PROMPTS, STEPS, SEED = ["a red dog", "two cats"], (1, 4), 7
STOCHASTIC = Sampler(3, stochastic=True)  # of 1,000 times, which LCMScheduler does not hold

# Run with -c: {folder: {steps: latents}} of every folder under sys.argv[1].
OPEN = """
import json, re, sys
import torch
from pathlib import Path
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

torch.set_num_threads(int(sys.argv[2]))
for folder in sorted(Path(sys.argv[1]).iterdir()):
    pipe = DiffusionPipeline.from_pretrained(folder / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    given = json.loads((folder / "given.json").read_text())
    # Tensors of a file lie where they lie in it; kernels round unaligned ones otherwise.
    given |= {k: v.clone() for k, v in load_file(folder / "given.safetensors").items()}
    found = {}
    for steps in (1, 4):
        seeds = [torch.Generator().manual_seed(7 + i) for i in range(2)]
        out = pipe(**given, num_inference_steps=steps, generator=seeds)
        found[str(steps)] = torch.as_tensor(out.images).contiguous()
    save_file(found, folder / "found.safetensors")
    code = re.search(r"```python\\n(.*?)```", (folder / "pipeline/README.md").read_text(), re.S)
    exec(code[1].replace("this/folder", str(folder / "pipeline")))
    print(type(pipe).__name__, type(pipe.scheduler).__name__, image.size)
assert not [name for name in sys.modules if name.startswith("genkit")]
"""


def generators_of():
    """As anybody seeds them."""
    return [torch.Generator().manual_seed(SEED + i) for i in range(len(PROMPTS))]


def scheduler_of(loaded, sampler):
    who = loaded.denoiser
    return hub.make_scheduler(sampler, who.path, who.kind, who.time_scale)


def student_of(loaded, seed=1):
    """A network that is not the teacher's any more."""
    network = copy.deepcopy(loaded.denoiser.network)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


def sampled(pipeline, sampler):
    """What the Trainer would deliver: our Denoiser on the pipeline's own scheduler."""
    loaded = as_denoiser(pipeline)
    generators = generators_of()
    cond = loaded.family.encode(pipeline, PROMPTS) if loaded.family.encode else {}
    noise = sample_noise(loaded.latent, generators)
    with torch.no_grad():
        return loaded.denoiser.sample(noise, cond, pipeline.scheduler, sampler.steps, generators)


def call_of(pipeline):
    """Tensors and plain values of a call without guidance."""
    loaded = as_denoiser(pipeline)
    if loaded.family.encode is None:
        return {}, {"batch_size": len(PROMPTS), "output_type": "np"}
    arguments = loaded.family.arguments(loaded.family.encode(pipeline, PROMPTS), None)
    tensors = {name: value for name, value in arguments.items() if torch.is_tensor(value)}
    rest = {name: value for name, value in arguments.items() if name not in tensors}
    return tensors, rest | {"guidance_scale": 1.0, "output_type": "latent"}


@pytest.fixture(scope="module")
def reopened(tmp_path_factory):
    """({family: {steps: our sample}}, {family: {steps: theirs}}, what the process printed)."""
    home = tmp_path_factory.mktemp("students")
    families = tiny.TEXT | {"ddpm": tiny.ddpm, "ddim": tiny.ddim}
    ours = {}
    for name, builder in families.items():
        loaded = as_denoiser(tiny.build(builder))
        scheduler = scheduler_of(loaded, Sampler(4))
        pipeline = rebuilt(loaded.pipeline, student_of(loaded).eval(), scheduler)
        ours[name] = {steps: sampled(pipeline, Sampler(steps)) for steps in STEPS}
        tensors, rest = call_of(pipeline)
        hub.save_pipeline(pipeline, home / name / "pipeline", {"steps": 4, "guidance": 1.0})
        save_file(tensors, home / name / "given.safetensors")
        (home / name / "given.json").write_text(json.dumps(rest))
    command = [sys.executable, "-W", "ignore", "-c", OPEN, str(home), str(torch.get_num_threads())]
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=home, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = {name: load_file(home / name / "found.safetensors") for name in families}
    return ours, theirs, done.stdout.splitlines()


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", tiny.TEXT)
def test_plain_diffusers_gives_our_sample(reopened, name, steps):
    ours, theirs, _ = reopened
    assert torch.equal(theirs[name][str(steps)], ours[name][steps])
    assert not torch.equal(theirs[name]["1"], theirs[name]["4"])


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_plain_diffusers_gives_our_pictures(reopened, name):
    """These two give pictures in [0, 1] only."""
    ours, theirs, _ = reopened
    for steps in STEPS:
        pictures = (ours[name][steps] / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        assert torch.equal(theirs[name][str(steps)], pictures)


def test_cards_of_stock_folders_run(reopened):
    """In the order of the folders' names."""
    assert reopened[2] == [
        "DDIMPipeline DDIMScheduler (8, 8)",
        "DDPMPipeline DDIMScheduler (8, 8)",
        "PixArtAlphaPipeline DDIMScheduler (16, 16)",
        "PixArtSigmaPipeline DDIMScheduler (16, 16)",
        "StableDiffusionPipeline DDIMScheduler (16, 16)",
        "StableDiffusionPipeline DDIMScheduler (16, 16)",
        "StableDiffusion3Pipeline FlowMapEulerDiscreteScheduler (16, 16)",
    ]


def test_everything_else_is_the_teachers():
    teacher = tiny.build(tiny.stable_diffusion)
    loaded = as_denoiser(teacher)
    network, scheduler = student_of(loaded), scheduler_of(loaded, Sampler(1))
    student = rebuilt(teacher, network, scheduler)
    assert type(student) is type(teacher)
    assert student.unet is network and student.scheduler is scheduler
    assert student.vae is teacher.vae and student.text_encoder is teacher.text_encoder
    assert student.safety_checker is None and student.config["requires_safety_checker"] is False
    assert teacher.unet is not network and isinstance(teacher.scheduler, DDIMScheduler)
    assert "_genkit" not in student.config


@pytest.mark.parametrize("builder", [tiny.stable_diffusion, tiny.pixart_alpha, tiny.pixart_sigma])
@pytest.mark.parametrize("sampler", [STOCHASTIC, Sampler(3), Sampler(1, (700.0,))])
def test_our_schedulers_in_stock_loops(tmp_path, builder, sampler):
    """Grids that no stock config holds: the same bits, opened by genkit, or by diffusers where the
    scheduler's module is imported first, as the card says."""
    loaded = as_denoiser(tiny.build(builder))
    pipeline = rebuilt(loaded.pipeline, student_of(loaded).eval(), scheduler_of(loaded, sampler))
    defaults = {"steps": sampler.steps, "guidance": 1.0}
    hub.save_pipeline(pipeline, tmp_path / "out", defaults)
    for opener in (hub.Pipeline, DiffusionPipeline):
        again = opener.from_pretrained(tmp_path / "out")
        again.set_progress_bar_config(disable=True)
        tensors, rest = call_of(again)
        call = {"num_inference_steps": sampler.steps, "generator": generators_of()}
        assert torch.equal(again(**tensors, **rest, **call).images, sampled(pipeline, sampler))
        assert as_denoiser(again).sampler == sampler


def test_unconditional_students_with_our_schedulers():
    """DDIMPipeline would turn them into DDIM; they leave as DDPMPipeline."""
    loaded = as_denoiser(tiny.build(tiny.ddim))
    for sampler in (STOCHASTIC, Sampler(3)):
        scheduler = scheduler_of(loaded, sampler)
        pipeline = rebuilt(loaded.pipeline, loaded.denoiser.network, scheduler)
        assert type(pipeline).__name__ == "DDPMPipeline" and pipeline.scheduler is scheduler
        pipeline.set_progress_bar_config(disable=True)
        generators = generators_of()
        images = pipeline(2, generators, sampler.steps, output_type="np").images
        expected = (sampled(pipeline, sampler) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        assert torch.equal(torch.from_numpy(images), expected)


def test_what_a_stock_loop_cannot_run():
    sd3 = tiny.build(tiny.stable_diffusion_3)
    flow = RectifiedFlow()
    for sampler, message in {
        STOCHASTIC: "hands no generator to its scheduler",
        Sampler(1, (0.8,)): "starts from unit noise, this sampler from 0.8",
    }.items():
        scheduler = hub.make_scheduler(sampler, flow, "velocity", 1000.0)
        with pytest.raises(ValueError, match=message):
            rebuilt(sd3, sd3.transformer, scheduler)
    scaled = hub.make_scheduler(Sampler(1, start_scale=2.0), DiscreteVP(), "eps", 1.0)
    ddpm = tiny.build(tiny.ddpm)
    with pytest.raises(ValueError, match="starts from unit noise"):
        rebuilt(ddpm, ddpm.unet, scaled)


def test_shift_leaves_with_the_student():
    teacher = tiny.build(tiny.stable_diffusion_3)
    stock = FlowMapEulerDiscreteScheduler(shift=3.0)
    loaded = as_denoiser(rebuilt(teacher, teacher.transformer, stock))
    again = scheduler_of(loaded, loaded.sampler)
    assert type(again) is type(stock) and again.config["shift"] == stock.config["shift"]
