"""Students of stock diffusers pipelines, distilled from three prompts and opened without genkit.

The teachers have tiny configs and random weights; their text encoders and tokenizers are built in
code (tests/denoisers/tiny_families.py). What is tested is the route: a folder somebody else saved,
prompts.txt, every method, a fresh process that imports diffusers alone, and the same bits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import genkit
from genkit import runs
from genkit.denoisers.families import find_family
from genkit.rng import sample_generators, sample_noise
from tests.denoisers import tiny_families

PROMPTS = ("cat", "dog", "bird")
SHORT = {
    "max_steps": 4,
    "batch_size": 4,
    "pairs": 8,
    "pair_steps": 2,
    "measure_n": 4,
    "measure_every": 4,
    "sample_every": 0,
    "guidance": 2.0,
}
FAMILIES = {
    "stable-diffusion": tiny_families.stable_diffusion,
    "pixart-alpha": tiny_families.pixart_alpha,
    "pixart-sigma": tiny_families.pixart_sigma,
    "stable-diffusion-3": tiny_families.stable_diffusion_3,
}
# What a person does with the folder, by the arguments on its card, where genkit is not installed.
OPEN = """
import json, sys
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
sys.modules["genkit"] = None
asked = json.loads(sys.argv[1])
# Cloned: safetensors' own memory is not aligned, which changes the last bits of a product.
given = {k: v.clone() for k, v in load_file(asked["given"]).items()}
pipeline = DiffusionPipeline.from_pretrained(asked["folder"])
x = pipeline(**given, **asked["call"], output_type="latent").images
save_file({"x": x.contiguous()}, asked["out"])
"""


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The trainer's own sample of what it exports, as the run's `x`, `noise` and conditions."""
    found: dict[str, Any] = {}
    export = runs.Run.export

    def watched(self: runs.Run, parts: Any, out: Path) -> None:
        generators = sample_generators(5, len(PROMPTS))
        found["noise"] = sample_noise(self.modality.latent, generators)
        cond = self.modality.cond(len(PROMPTS))
        student = parts["network"].eval()
        found["x"] = self.method.sample(student, found["noise"], cond, None, generators)
        assert self.teacher is not None
        found["call"] = find_family(self.teacher.pipeline).arguments(cond, None)
        return export(self, parts, out)

    monkeypatch.setattr(runs.Run, "export", watched)
    return found


def distil(family: str, method: str, home: Path, **config: Any) -> Path:
    """The saved student of a tiny teacher that was saved by its own class."""
    tiny_families.build(FAMILIES[family]).save_pretrained(home / "teacher")
    prompts = home / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
    genkit.distill(home / "teacher", method, str(prompts), home / "run", **SHORT, **config)
    return home / "run" / "pipeline"


def opened_elsewhere(folder: Path, caught: dict[str, Any], home: Path) -> torch.Tensor:
    """What stock diffusers makes of the folder in a fresh process."""
    tensors = {k: v.contiguous() for k, v in caught["call"].items() if torch.is_tensor(v)}
    save_file({"latents": caught["noise"], **tensors}, home / "given")
    facts = json.loads((folder / "model_index.json").read_text())["_genkit"]
    call = {k: v for k, v in caught["call"].items() if not torch.is_tensor(v)}
    call |= {"num_inference_steps": facts["steps"], "guidance_scale": facts["guidance"]}
    asked = {"folder": str(folder), "given": str(home / "given"), "out": str(home / "x")}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, json.dumps(asked | {"call": call})],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(home / "x")["x"]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_student_leaves_as_its_teachers_own_class(family: str, tmp_path: Path, caught):
    folder = distil(family, "dmd2", tmp_path)
    assert torch.equal(opened_elsewhere(folder, caught, tmp_path), caught["x"])


@pytest.mark.parametrize("method, scale", [("lcm", 2.0), ("slam", 1.0), ("tcd", 2.0)])
def test_a_scale_that_is_an_input_is_stable_diffusion_s_own(method, scale, tmp_path, caught):
    """time_cond_proj_dim: the stock pipeline embeds guidance_scale and evaluates once."""
    folder = distil("stable-diffusion", method, tmp_path, steps=1)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["scheduler"][1] == ("TCDScheduler" if method == "tcd" else "LCMScheduler")
    facts = json.loads((folder / "model_index.json").read_text())["_genkit"]
    config = json.loads((folder / "unet" / "config.json").read_text())
    assert facts["guidance"] == scale and config["time_cond_proj_dim"] == 256
    assert torch.equal(opened_elsewhere(folder, caught, tmp_path), caught["x"])


@pytest.mark.parametrize(
    "method, scale, scheduler, told",
    [
        ("tcd", 2.0, "TCDScheduler", {"eta": 0.3}),
        ("lcm", 2.0, "LCMScheduler", {}),
        ("slam", 1.0, "LCMScheduler", {}),
    ],
)
def test_a_stochastic_student_leaves_with_the_stock_scheduler(
    method, scale, scheduler, told, tmp_path: Path, caught
):
    from diffusers import StableDiffusionPipeline

    folder = distil("stable-diffusion", method, tmp_path, steps=2)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder)
    assert type(pipeline.scheduler).__name__ == scheduler
    assert ("eta=0.3" in (folder / "README.md").read_text()) is bool(told)
    call = {"num_inference_steps": 2, "guidance_scale": scale, "output_type": "latent", **told}
    generators = sample_generators(5, len(PROMPTS))
    noise = sample_noise(tuple(caught["noise"].shape[1:]), generators)
    x = pipeline(**caught["call"], latents=noise, generator=generators, **call).images
    assert torch.equal(x, caught["x"])


def test_an_input_that_a_stock_pipeline_does_not_give_is_refused(tmp_path: Path):
    """Before anything is made: PixArt's own loop knows one time and no scale."""
    with pytest.raises(ValueError, match="PixArtAlphaPipeline gives its network no guidance scale"):
        distil("pixart-alpha", "lcm", tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reflow", "consistency"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_by_every_method(family: str, method: str, tmp_path: Path, caught):
    folder = distil(family, method, tmp_path)
    assert torch.equal(opened_elsewhere(folder, caught, tmp_path), caught["x"])


@pytest.mark.parametrize("method", ["dmd2", "consistency"])
def test_a_lora_student_leaves_merged_and_as_an_adapter(method: str, tmp_path: Path, caught):
    folder = distil("stable-diffusion", method, tmp_path, lora=2)
    merged = opened_elsewhere(folder, caught, tmp_path)
    # Adding the adapter to the weights rounds once; the trainer adds it to the activations.
    assert torch.allclose(merged, caught["x"], rtol=1e-4, atol=1e-5)

    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(tmp_path / "teacher")
    pipeline.scheduler = StableDiffusionPipeline.from_pretrained(folder).scheduler
    call = {"num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "latent"}

    def draw() -> torch.Tensor:
        return pipeline(**caught["call"], latents=caught["noise"], **call).images

    before = draw()
    pipeline.load_lora_weights(tmp_path / "run" / "lora")
    assert torch.allclose(draw(), merged, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, merged, rtol=1e-4, atol=1e-5)
