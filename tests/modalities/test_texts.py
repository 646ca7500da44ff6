"""Tests of genkit/modalities/texts.py: prompts read by a fresh tokenizer, or by a teacher."""

from pathlib import Path
from typing import Any

import pytest
import torch

from genkit import hub
from genkit.data.base import Gathered, Prompts, Samples
from genkit.data.pairs import cached_pairs
from genkit.denoisers.diffusers import as_denoiser
from genkit.modalities import TextImages, modality
from genkit.networks.text import text_encoder, text_transformer, word_tokenizer
from genkit.paths import RectifiedFlow
from genkit.rng import sample_generators
from genkit.sampling import Sampler
from genkit_pipelines.image.text_to_image import TextToImagePipeline

WORDS = ("a red cat", "two dogs", "a red cat")
NEW = ("two red cats", "a dog")


@pytest.fixture(scope="module")
def data() -> Samples:
    return Samples(torch.rand(3, 3, 8, 8), {}, "animals", captions=WORDS, held_out=NEW)


@pytest.fixture(scope="module")
def teacher() -> Any:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(WORDS, length=6)
    network = text_transformer(3, 8, heads=2, width=8, depth=1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    scheduler = hub.make_scheduler(Sampler(3), RectifiedFlow(), "x_0", 1000.0)
    encoder = text_encoder(len(tokenizer)).eval()
    return as_denoiser(TextToImagePipeline(tokenizer, encoder, network.eval(), scheduler))


def test_a_teacher_to_be_trained_reads_tokens_of_the_captions(data: Samples):
    kind = modality(data)
    assert isinstance(kind, TextImages) and kind.kind == "x_0" and kind.latent == (3, 8, 8)
    batches = kind.batches(data)
    tokens = batches["cond"]["tokens"][torch.arange(3)]
    assert torch.equal(tokens[0], tokens[2]) and not torch.equal(tokens[0], tokens[1])
    assert torch.equal(batches["x_0"], data.x_0)
    assert kind.uncond["tokens"].shape == (1, 16) and kind.uncond["tokens"][0, 0] == 2


def test_measurements_ask_for_what_was_held_out(data: Samples):
    kind = modality(data)
    assert kind.asked(3) == ("two red cats", "a dog", "two red cats")
    cond = kind.cond(3)["tokens"]
    assert torch.equal(cond[0], cond[2]) and not torch.equal(cond[0], cond[1])
    trained = kind.training_cond(4)["tokens"]
    assert torch.equal(trained[torch.arange(3)], kind.batches(data)["cond"]["tokens"][:])
    assert len(trained) == 4


def test_a_preview_shows_every_prompt_twice(data: Samples):
    tokens = modality(data).preview_cond()["tokens"]
    assert len(tokens) == modality(data).preview_n
    assert torch.equal(tokens[::2], tokens[1::2])


def test_a_student_reads_what_its_teachers_encoder_makes(data: Samples, teacher: Any):
    kind = modality(data, teacher)
    assert isinstance(kind, TextImages) and kind.teacher is teacher
    cond = kind.batches(data)["cond"]["encoder_hidden_states"]
    assert isinstance(cond, Gathered) and len(cond) == 3 and len(cond.table) == 2
    expected = teacher.pipeline.encode_prompt(["two dogs"])
    assert torch.allclose(cond[torch.tensor([1])], expected, atol=1e-6)
    nothing = teacher.pipeline.encode_prompt("")
    assert torch.allclose(kind.uncond["encoder_hidden_states"], nothing, atol=1e-6)


def test_prompts_alone_are_enough_for_a_teacher_that_reads_them(teacher: Any):
    kind = modality(Prompts(NEW, "prompts.txt-1"), teacher)
    assert kind.asked(2) == NEW and kind.latent == (3, 8, 8)


def test_prompts_need_a_teacher_that_reads_them(tiny_teacher: Path):
    digits = as_denoiser(hub.Pipeline.from_pretrained(tiny_teacher))
    with pytest.raises(ValueError, match="holds prompts, and this pipeline takes none"):
        modality(Prompts(NEW, "prompts.txt-1"), digits)


def test_pictures_of_another_size_are_refused(teacher: Any):
    large = Samples(torch.rand(2, 3, 16, 16), {}, "large", captions=NEW)
    with pytest.raises(ValueError, match=r"\(3, 16, 16\).* the teacher's are \(3, 8, 8\)"):
        modality(large, teacher).batches(large)


def test_generating_is_the_pipelines_own_call(data: Samples, teacher: Any):
    kind, pipeline = modality(data, teacher), teacher.pipeline
    x = kind.generate(pipeline, kind.asked(2), sample_generators(3, 2), 3, 2.0)
    again = pipeline(
        list(NEW),
        num_inference_steps=3,
        guidance_scale=2.0,
        generator=sample_generators(3, 2),
        output_type="latent",
    ).images
    assert torch.allclose(x, again, atol=1e-6)


def test_pairs_keep_their_conditions_where_rows_are_gathered(teacher: Any, tmp_path: Path):
    kind = modality(Prompts(NEW, "prompts.txt-1"), teacher)
    seen = []

    def make(eps: torch.Tensor, cond: dict[str, torch.Tensor], generators: list) -> dict:
        seen.append(cond["encoder_hidden_states"])
        return {"x_0": eps + 1}

    def pairs() -> Any:
        return cached_pairs(tmp_path, "key", make, kind.training_cond(5), (3, 8, 8), 0, shard=2)

    stream, count = pairs(), len(seen)
    assert count == 3 and torch.equal(torch.cat(seen), stream.tensors["cond"]
                                      ["encoder_hidden_states"][:])  # fmt: skip
    batch, again = stream.batch(0, 0, 4), pairs().batch(0, 0, 4)
    assert len(seen) == count, "made once"
    for each in (batch, again):
        assert torch.equal(each["cond"]["encoder_hidden_states"],
                           batch["cond"]["encoder_hidden_states"])  # fmt: skip


def test_latents_of_a_vae_are_what_is_learned_and_shown(teacher: Any, tmp_path: Path):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        latent_channels=3,
        scaling_factor=0.5,
    ).eval()
    parts = {**teacher.pipeline.components, "vae": vae}
    kind = modality(Prompts(NEW, "p"), as_denoiser(TextToImagePipeline(**parts)))
    pictures = torch.rand(2, 3, 16, 16)
    data = Samples(pictures, {}, "large", captions=NEW)
    latents = kind.batches(data)["x_0"]
    with torch.no_grad():
        assert torch.allclose(latents, vae.encode(pictures).latent_dist.mean * 0.5, atol=1e-6)
        shown = vae.decode(latents / 0.5, return_dict=False)[0]
    assert torch.allclose(kind.decode(latents), shown, atol=1e-6)
    assert kind.render({"a": latents}, tmp_path / "sheet").exists()
