"""Students of genkit's own text-to-image pipeline whose networks have one more input.

A tiny teacher with random weights, distilled from three prompts: the student is saved, opened again
and must draw what the trainer did.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import genkit
from genkit import hub, runs
from genkit.networks.text import text_encoder, text_transformer, word_tokenizer
from genkit.opening import open_teacher
from genkit.paths import RectifiedFlow
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler
from genkit_pipelines.image.text_to_image import TextToImagePipeline

PROMPTS = ("a red cat", "two dogs", "a blue bird")
SHORT: dict[str, Any] = {
    "max_steps": 4,
    "batch_size": 4,
    "pairs": 8,
    "pair_steps": 2,
    "measure_every": 0,
    "sample_every": 0,
    "lr": 1e-2,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(PROMPTS, length=8)
    encoder = text_encoder(len(tokenizer)).eval()
    network = text_transformer(3, 8, heads=2, width=8, depth=1).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    scheduler = hub.make_scheduler(Sampler(4), RectifiedFlow(), "velocity", 1000.0)
    folder = tmp_path_factory.mktemp("teachers") / "words"
    pipeline = TextToImagePipeline(tokenizer, encoder, network, scheduler)
    hub.save_pipeline(pipeline, folder, {"steps": 4, "guidance": 2.0, "method": "flow_matching"})
    return folder


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the trainer samples of what it exports."""
    found: dict[str, Any] = {}
    export = runs.Run.export

    def watched(self: runs.Run, parts: Any, out: Path) -> None:
        generators = sample_generators(5, len(PROMPTS))
        noise = sample_noise(self.modality.latent, generators)
        cond = self.modality.cond(len(PROMPTS))
        found["x"] = self.method.sample(parts["network"].eval(), noise, cond, None, generators)
        return export(self, parts, out)

    monkeypatch.setattr(runs.Run, "export", watched)
    return found


def distil(teacher: Path, method: str, home: Path, **config: Any) -> Any:
    prompts = home / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
    genkit.distill(teacher, method, str(prompts), home / "run", **SHORT, **config)
    return genkit.Pipeline.from_pretrained(home / "run" / "pipeline")


def drawn(pipeline: Any, **call: Any) -> torch.Tensor:
    generators = sample_generators(5, len(PROMPTS))
    return pipeline(list(PROMPTS), generator=generators, output_type="latent", **call).images


@pytest.mark.parametrize("method", ["meanflow", "shortcut", "flow_map"])
def test_a_second_time_is_saved_and_opened_again(method, teacher, tmp_path, caught):
    student = distil(teacher, method, tmp_path, steps=2)
    assert type(student.network).__name__ == "TextTransformer"
    assert type(student.scheduler).__name__ == "FlowMapEulerDiscreteScheduler"
    weight = student.network.adaln_single.second_time.weight
    assert student.network.config["two_time"] and weight.abs().max() > 0, "it has learned from it"
    assert torch.equal(drawn(student), caught["x"])
    again = open_teacher(tmp_path / "run" / "pipeline")[0]
    assert again.denoiser.two_time


def test_scm_needs_no_second_time(teacher, tmp_path, caught):
    student = distil(teacher, "scm", tmp_path)
    assert type(student.network).__name__ == "PixArtTransformer2DModel"
    assert torch.equal(drawn(student), caught["x"])


@pytest.mark.parametrize(
    "method, config",
    [("lcm", {}), ("guidance_distill", {"guidance_high": 4.0, "steps": 2}), ("tcd", {"steps": 2})],
)
def test_a_guidance_scale_is_an_input_of_the_opened_pipeline(
    method, config, teacher, tmp_path, caught
):
    student = distil(teacher, method, tmp_path, **config)
    facts = hub.trained(student)
    assert facts["guidance"] == 2.0 and student.network.config["guidance_input"]
    asked = []
    student.network.register_forward_pre_hook(
        lambda module, given, named: asked.append((len(given[0]), named["guidance"].tolist())),
        with_kwargs=True,
    )
    assert torch.equal(drawn(student), caught["x"])
    assert asked == [(3, [2.0] * 3)] * facts["steps"], "one evaluation a step, told its scale"
    torch.nn.init.normal_(student.network.adaln_single.guidance.weight)
    assert not torch.allclose(drawn(student, guidance_scale=1.5), drawn(student))
    asked.clear()
    other = drawn(student, negative_prompt="two dogs", guidance_scale=3.0)
    assert asked == [(6, [1.0] * 6)] * facts["steps"], "guided from what is to be avoided, told 1"
    assert not torch.allclose(other, drawn(student, guidance_scale=3.0))
    with pytest.raises(ValueError, match="guidance_input=True in its config is not supported"):
        open_teacher(tmp_path / "run" / "pipeline")


def test_the_figures_of_such_a_student_are_of_its_own_scale(teacher, tmp_path, caught):
    """What an evaluation draws is what the pipeline draws by default."""
    from genkit.data.base import Prompts
    from genkit.denoisers.diffusers import as_denoiser
    from genkit.modalities import TextImages

    student = distil(teacher, "lcm", tmp_path)
    loaded = as_denoiser(genkit.Pipeline.from_pretrained(teacher))
    kind = TextImages.of_teacher(Prompts("three", PROMPTS), loaded)
    x = kind.generate(student, PROMPTS, sample_generators(5, 3), 1, 2.0)
    assert torch.equal(x, caught["x"])
    index = json.loads((tmp_path / "run" / "pipeline" / "model_index.json").read_text())
    assert index["_genkit"]["guidance"] == 2.0
